.PHONY: check test race power crash crash-container machine teeth bench pairs containers cross size mutants

check:
	.ci/run build format vet static tidy

test race power crash crash-container machine teeth bench pairs containers cross size mutants:
	.ci/run $@
