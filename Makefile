# What people and continuous integration run. `make help` lists it.
.DEFAULT_GOAL := help
.PHONY: help demo test lint bench check-cuda

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

demo: ## distils a student from a small real teacher, end to end (about 20 minutes at first, then at once)
	scripts/demo.sh

test: ## fetches what the tests need, builds, and runs every test: what continuous integration runs
	scripts/test.sh

lint: ## formatting, clippy without a warning, the edges between crates, generated code, protocol definitions, scripts
	scripts/lint.sh

bench: ## side by side with transformers, CTranslate2 and a bare load generator on this machine; ratios last
	scripts/bench.sh

check-cuda: ## on a machine with a GPU: goldens, gradients, a run and a prediction on it
	scripts/check-cuda.sh
