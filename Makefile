# make demo: set up and run the main job.  make test: set up and run the tests.  make install: set up alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: install demo test kernels lint types docs check clean

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11 to 3.13 is needed; call make PYTHON=python3.12, say")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q --constraint constraints.txt --editable '.[dev,docs]'
	@touch $(READY)

demo: install
	$(BIN)/lra-bench run --replay generative --meta

test: install
	$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist loadfile

# Those that rounding could sway, as a processor without AVX computes.
kernels: install
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(BIN)/python -m pytest -q -m "kernels and not slow" -n 2 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# What ships is what is checked: the folders at the top become lra.strategies and lra.benchmarks only in the package.
types: install
	rm -rf build/typed build/lib
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation --target build/typed .
	MYPYPATH=build/typed:docs $(BIN)/mypy -p lra -p generate -m hooks

# Into build/site, without the network; a warning is an error.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check: lint types docs test kernels

clean:
	rm -rf $(VENV) build dist *.egg-info
