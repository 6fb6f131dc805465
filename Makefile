.PHONY: check test race crash bench cross size mutants

check:
	.ci/run build format vet static tidy

test race crash bench cross size mutants:
	.ci/run $@
