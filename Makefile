# The verbs of this project. Each makes the environment it needs, so a fresh clone needs nothing first but
# Python 3.11 or newer. Choose another Python with `make PYTHON=python3.12 test`.

.PHONY: demo test check bench test-slow chaos faults compose-test clean
.DELETE_ON_ERROR:

# The stamp is named after the folder and the chosen Python: an environment does not survive being moved.
where := $(shell echo '$(CURDIR) $(PYTHON)' | cksum | cut -d' ' -f1)
VENV := .venv/installed-$(where)
VENV_BENCH := .venv-bench/installed-$(where)
RUN := .venv/bin/python

demo: $(VENV)  ## train on Ray and in one process, compare the bits, predict
	@$(RUN) examples/demo.py

test: $(VENV)  ## all tests but those that take many minutes
	@$(RUN) -m pytest

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
	@.venv-bench/bin/python -m benchmarks.run --one-core --write docs/benchmarks.md
	@.venv-bench/bin/python -m benchmarks.run --two-core --write docs/benchmarks.md

clean:  ## removes what the other verbs made, the environments too
	@rm -rf .venv .venv-bench build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis runs
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV): pyproject.toml constraints.txt
	@sh tools/environment.sh .venv dev "$(PYTHON)"
	@rm -f .venv/installed-* && touch $@

$(VENV_BENCH): pyproject.toml constraints.txt
	@sh tools/environment.sh .venv-bench bench "$(PYTHON)"
	@rm -f .venv-bench/installed-* && touch $@
