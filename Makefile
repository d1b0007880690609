# The two commands are `make demo` and `make test`; the rest is for those who work on gradtx.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ACCELERATORS := .venv-accelerators
DOWNSTREAM := .venv-downstream
WORKERS ?= auto

export JAX_PLATFORMS ?= cpu

.PHONY: demo char-lm fsdp test peer fuzz mutations lint types docs accelerators downstream smoke bench clean

demo: $(VENV)/.examples
	$(BIN)/python examples/digits.py

# A transformer that is killed half-way and goes on: under three minutes
char-lm: $(VENV)/.examples
	$(BIN)/python examples/char_lm.py

# The same over eight devices with ZeRO-1, Muon and int8 state; killed, and resumed on four
fsdp: $(VENV)/.test
	$(BIN)/python examples/fsdp_char_lm.py

PYTEST := -m pytest -n $(WORKERS) --dist loadgroup --durations=10 --durations-min=0.5

test: $(VENV)/.test
	@echo "laws: every law on every method; oracles: every method beside its float64 reference;"
	@echo "unit: every room of the source; docs: pages, examples, README; house: the rules of the"
	@echo "house; fuzz: random definitions; mutations: every row applies; docstrings: the examples"
	$(BIN)/python $(PYTEST)

# Run some areas of Optax's own tests on gradtx, and compare the counts with docs/peer_suite.md;
# AREAS= runs all of them, for half an hour, and writes that page
AREAS ?= losses tree_utils projections schedules assignment numerics linear_algebra
peer: $(VENV)/.test
	$(BIN)/python -m tests.peer $(AREAS)

# Break equations, a tenth of them by the day of the year, and see tests fail; PART=1/1 breaks all
PART ?= today/10
mutations: $(VENV)/.test
	$(BIN)/python -m tests.mutations --part $(PART)

# Look for failures of random definitions in random surroundings; MINUTES=30 for half an hour
MINUTES ?= 60
fuzz: $(VENV)/.test
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	PATH="$(CURDIR)/$(BIN):$$PATH" pyright
	PATH="$(CURDIR)/$(BIN):$$PATH" pyright --verifytypes gradtx --ignoreexternal

# Build the pages, then check them: words that users search for, links, images, tables, equations;
# `python -m tests.site --screens` opens each page in Chromium, too
docs: $(VENV)/.docs
	$(BIN)/sphinx-build -q -W --keep-going -j auto -b html docs docs/_build/html
	$(BIN)/python -m tests.site

# XLA's compilers for TPU and GPU, which need no device; they live in an environment of their own.
accelerators: $(ACCELERATORS)/.test
	$(ACCELERATORS)/bin/python -m pytest -n 2 --dist loadgroup --durations=10 tests/accelerators

# A part of the tests under another Python, compiled as users do: make smoke PYTHON=python3.13 VENV=.venv-3.13
smoke: $(VENV)/.test
	XLA_FLAGS=--xla_force_host_platform_device_count=8 $(BIN)/python $(PYTEST) tests/oracles/test_oracles.py tests/unit/definition tests/unit/compose/test_select.py tests/unit/interop/test_interop.py

# Other people's libraries train with gradtx as with Optax, in an environment of their own
downstream: $(DOWNSTREAM)/.downstream
	$(DOWNSTREAM)/bin/python -m pytest --durations=5 tests/downstream

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks.all

$(VENV)/.created:
	@$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else f'gradtx needs Python 3.11 or newer, and {sys.executable} is {sys.version.split()[0]}: run make PYTHON=/path/to/python3.11')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade pip
	@touch $@

$(VENV)/.examples $(VENV)/.test $(VENV)/.docs: $(VENV)/.%: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[$*]'
	@touch $@

$(ACCELERATORS)/.test: pyproject.toml
	$(PYTHON) -m venv $(ACCELERATORS)
	$(ACCELERATORS)/bin/python -m pip install -q --disable-pip-version-check -e '.[accelerators,test]'
	version=$$($(ACCELERATORS)/bin/python -c "import importlib.metadata as m; print(m.version('jax'))") && \
	$(ACCELERATORS)/bin/python -m pip install -q --disable-pip-version-check --no-deps \
		jax-cuda13-pjrt==$$version jax-cuda13-plugin==$$version nvidia-cuda-nvcc nvidia-nvvm
	@touch $@

$(DOWNSTREAM)/.downstream: pyproject.toml
	$(PYTHON) -m venv $(DOWNSTREAM)
	$(DOWNSTREAM)/bin/python -m pip install -q --disable-pip-version-check -e '.[downstream]'
	@touch $@

clean:
	rm -rf $(VENV) .venv-* .jax_cache docs/_build build dist
