# Commands for developers and continuous integration. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help demo test soak fuzz lint advisories bench check-cuda

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

demo: ## distil two students from a small real teacher, end to end (half an hour on two cores the first time, seconds after that)
	scripts/demo.sh

test: ## fetch what the tests need, build, and run every test
	scripts/test.sh

soak: ## hostile messages, floods, kills and cut lines for an hour or two (MESSAGES=1000000 MINUTES=30)
	scripts/soak.sh

fuzz: ## search for bytes that break a reader, with libFuzzer, a minute each (SECONDS_EACH=60)
	scripts/fuzz.sh

lint: ## formatting, clippy, documentation, edges, unused dependencies, licences, generated code, protocol, spelling, scripts
	scripts/lint.sh

advisories: ## check dependencies against RustSec's database; needs git access to it
	scripts/advisories.sh

bench: ## measure side by side with transformers, CTranslate2 and a bare load generator; ratios come last
	scripts/bench.sh

check-cuda: ## on a machine with a GPU: golden tests, gradients, a training run and a prediction on the device
	scripts/check-cuda.sh
