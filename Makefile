# Two commands do everything on a fresh machine with Python >= 3.11: `make demo` and `make test`.

PYTHON ?= python3
CORES ?= $(shell getconf _NPROCESSORS_ONLN)
DATA ?= ../shared/data
PEER ?= .venv-peer
BIN := .venv/bin
SNAKEFILES := Snakefile $(wildcard workflow/rules/*.smk)

.PHONY: setup setup-slurm demo test test-fast test-slurm lint format types acceptance parity bench schema clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "segwright needs Python 3.11 or newer; run: make PYTHON=python3.11 setup")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[workflow,dev]'
	touch $@

# The executor costs every start of Snakemake 0.3 s, so it is installed only where there is a cluster.
setup-slurm: .venv/slurm

.venv/slurm: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[workflow,slurm,dev]'
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
	$(BIN)/python -m pytest -n $(CORES) --dist loadgroup -m 'not acceptance and not slurm' tests

test-fast: setup
	$(BIN)/python -m pytest -n $(CORES) --dist loadgroup -m 'not acceptance and not slurm and not workflow' tests

# As root on Debian: installs SLURM, starts a cluster on this machine, runs the workflow on it and stops it again.
test-slurm: setup-slurm
	$(BIN)/python -m tests.slurm.run

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
acceptance: setup-slurm
	$(BIN)/python -m pytest -m acceptance tests -v --data $(DATA)

# nnU-Net v2 itself beside segwright; PEER= names an environment that has it. Results: benchmarks/results/parity.md.
parity: setup $(filter .venv-peer/ready,$(PEER)/ready)
	$(BIN)/python -m benchmarks.peer.run --peer $(PEER) --data $(DATA)

.venv-peer/ready: benchmarks/peer/install.sh | setup
	PYTHON=$(BIN)/python sh benchmarks/peer/install.sh .venv-peer
	touch $@

# nnU-Net v2 and segwright in turn; PEER= as above, ONLY= a part of the stages' names. Results: benchmarks/results/speed.md.
bench: setup $(filter .venv-peer/ready,$(PEER)/ready)
	$(BIN)/python -m benchmarks.run --peer $(PEER) --data $(DATA) --only '$(ONLY)'

# The configuration file and its schema are generated from the typed settings.
schema: setup
	$(BIN)/python -m segwright.core.configfile --write

clean:
	rm -rf demo .snakemake
