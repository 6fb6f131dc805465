.PHONY: check test race power crash crash-container machine watchdog teeth bench pairs containers engines reporting fleet cross size mutants

check:
	.ci/run build format vet static tidy

test race power crash crash-container machine watchdog teeth bench pairs containers engines reporting fleet cross size mutants:
	.ci/run $@
