# The verbs of this project. Each makes the environment it needs, so a fresh clone needs nothing first but
# Python 3.11 or newer. Choose another Python with `make PYTHON=python3.12 test`.

.PHONY: demo quick test test-random lowest check bench test-slow chaos faults compose-test package clean
.DELETE_ON_ERROR:

# The stamp is named after the folder and the chosen Python: an environment does not survive being moved.
where := $(shell echo '$(CURDIR) $(PYTHON)' | cksum | cut -d' ' -f1)
VENV := .venv/installed-$(where)
VENV_BENCH := .venv-bench/installed-$(where)
VENV_LOWEST := .venv-lowest/installed-$(where)
RUN := .venv/bin/python
# Tests start hundreds of interpreters. Each would compile every module again if nothing were kept.
unexport PYTHONDONTWRITEBYTECODE
# The gate: the same order and the same examples each time; what was skipped, and what took longest.
# Three processes, also on two cores: some tests wait for processes, Ray or a service. With more, the workers of
# a test wait for a core. Each process takes about 1 GB. Quick tests wait for nothing, so they run in two.
GATE := --randomly-seed=1 --durations=10 -rs -n 3
SEEDS ?= $(shell shuf -i 1-4294967295 -n 5)

demo: $(VENV)  ## train on Ray and in one process, compare the bits, predict
	@$(RUN) examples/demo.py

quick: $(VENV)  ## one case of each test that starts neither Ray nor a service
	@$(RUN) -m pytest $(GATE) -n 2 --quick

test: $(VENV)  ## all tests but those that take many minutes
	@$(RUN) -m pytest $(GATE)

test-random: $(VENV)  ## the properties with other examples, and the quick tests in other orders: SEEDS="1 2"
	@for seed in $(SEEDS); do \
		echo "seed $$seed (again: make test-random SEEDS=$$seed)"; \
		set -- --durations=10 --randomly-seed=$$seed --hypothesis-profile=random --hypothesis-seed=$$seed; \
		$(RUN) -m pytest -q "$$@" -m 'hypothesis and not (slow or chaos or faults or compose)' || exit 1; \
		$(RUN) -m pytest -q "$$@" --quick || exit 1; \
	done

lowest: $(VENV_LOWEST)  ## the quick tests with the lowest versions that pyproject.toml allows; Python 3.11
	@.venv-lowest/bin/python -m pytest $(GATE) -n 2 --quick

package: $(VENV)  ## wheel and sdist into dist/, tried in fresh environments
	@$(RUN) -m pytest $(GATE) -n 0 -m package tests/test_package.py

test-slow: $(VENV)  ## the long ones: full training curves, MNIST
	@$(RUN) -m pytest -m slow

chaos: $(VENV)  ## hundreds of runs with faults injected
	@$(RUN) -m pytest -m chaos

faults: $(VENV)  ## parts of the service killed, again and again, while 20 jobs run
	@$(RUN) -m pytest -m faults

compose-test: $(VENV)  ## containers for real: build, start, train, kill; needs a Docker engine
	@$(RUN) -m pytest -m compose tests/compose

check: $(VENV)  ## lint, format and types
	@$(RUN) -m ruff check --quiet .
	@$(RUN) -m ruff format --quiet --check . || { $(RUN) -m ruff format --check .; exit 1; }
	@$(RUN) -m mypy --no-error-summary
	@echo "make check: no faults"

bench: $(VENV_BENCH)  ## against PyTorch, JAX, scikit-learn and Ray Train; writes docs/benchmarks.md
	@.venv-bench/bin/python -m benchmarks.run --one-core $(if $(BASE),--base $(BASE)) --write docs/benchmarks.md
	@.venv-bench/bin/python -m benchmarks.run --any-job $(if $(BASE),--base $(BASE)) --write docs/benchmarks.md
	@.venv-bench/bin/python -m benchmarks.run --any-job-two-core --write docs/benchmarks.md
	@.venv-bench/bin/python -m benchmarks.run --two-core --write docs/benchmarks.md
	@.venv-bench/bin/python -m benchmarks.run --networks --write docs/benchmarks.md
	@.venv-bench/bin/python -m benchmarks.run --networks-two-core --write docs/benchmarks.md

clean:  ## removes what the other verbs made, the environments too
	@rm -rf .venv .venv-bench .venv-lowest build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis runs
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV): pyproject.toml constraints.txt
	@sh tools/environment.sh .venv dev "$(PYTHON)"
	@rm -f .venv/installed-* && touch $@

$(VENV_BENCH): pyproject.toml constraints.txt
	@sh tools/environment.sh .venv-bench bench "$(PYTHON)"
	@rm -f .venv-bench/installed-* && touch $@

$(VENV_LOWEST): pyproject.toml constraints.txt
	@sh tools/environment.sh .venv-lowest lowest "$(or $(PYTHON),python3.11)"
	@rm -f .venv-lowest/installed-* && touch $@
