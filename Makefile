# Two commands do everything on a fresh machine with Python >= 3.11: `make demo` and `make test`.

PYTHON ?= python3
CORES ?= $(shell getconf _NPROCESSORS_ONLN)
DATA ?= ../shared/data
BIN := .venv/bin
SNAKEFILES := Snakefile $(wildcard workflow/rules/*.smk)

.PHONY: setup demo test test-fast lint format types acceptance bench schema clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "segwright needs Python 3.11 or newer; run: make PYTHON=python3.11 setup")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[workflow,dev]'
	touch $@

# snakefmt needs another `packaging` than Snakemake accepts, so it lives in an environment of its own.
.venv-snakefmt/ready: constraints-snakefmt.txt
	$(PYTHON) -m venv .venv-snakefmt
	.venv-snakefmt/bin/pip install --quiet --disable-pip-version-check -r constraints-snakefmt.txt
	touch $@

demo: setup
	test -d demo/data/Dataset900_Phantom || $(BIN)/segwright phantom --preset large --cases 8 --seed 1 --output demo/data/Dataset900_Phantom
	$(BIN)/snakemake --configfile config/demo.yaml --cores $(CORES)
	@$(BIN)/segwright status demo/results

test: setup lint
	$(BIN)/python -m pytest -n $(CORES) --dist loadgroup -m 'not acceptance' tests

test-fast: setup
	$(BIN)/python -m pytest -n $(CORES) --dist loadgroup -m 'not acceptance and not workflow' tests

lint: setup .venv-snakefmt/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	.venv-snakefmt/bin/snakefmt --check --line-length 120 $(SNAKEFILES)
	$(BIN)/snakemake --lint --configfile config/lint.yaml

format: setup .venv-snakefmt/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	.venv-snakefmt/bin/snakefmt --line-length 120 $(SNAKEFILES)

types: setup
	$(BIN)/mypy

# Long runs on real images; DATA= names their folder. Results are written to benchmarks/results/acceptance.md.
acceptance: setup
	$(BIN)/python -m pytest -m acceptance tests -v --data $(DATA)

bench: setup
	$(BIN)/python -m benchmarks.run

# The configuration file and its schema are generated from the typed settings.
schema: setup
	$(BIN)/python -m segwright.core.configfile --write

clean:
	rm -rf demo .snakemake
