.PHONY: check test race power crash machine teeth bench pairs cross size mutants

check:
	.ci/run build format vet static tidy

test race power crash machine teeth bench pairs cross size mutants:
	.ci/run $@
