# Two commands matter: `make lab` opens the course, `make test` proves that all of it works.
# Both prepare .venv when that is needed and do nothing of the kind when it is not.

VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# The Python that .venv is made from: the first of these that runs and is new enough.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.10 python3; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 && echo $$name && break; done)
LAB_ARGS ?=
# Jupyter refuses to run as root, as in a container, unless it is told that root is meant.
AS_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)
PIP_ARGS ?=
# A limit for hangs, not for slow machines: seconds per cell.
CELL_TIMEOUT ?= 900
# Tests and whole notebooks side by side on several cores.
PARALLEL ?= -n auto --maxprocesses 4
# So many threads for each of them, so that they share the cores and do not queue for them.
THREADS ?= $(shell expr \( $$(getconf _NPROCESSORS_ONLN) + 3 \) / 4)
NOTEBOOKS ?= $(sort $(wildcard notebooks/*.ipynb))

# Threads that wait by spinning slow everything threefold where another process uses a core.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: lab test long lint browser notebooks handout clean
.DELETE_ON_ERROR:

lab: $(STAMP)  ## open the course (make lab LAB_ARGS="--no-browser --port 8899")
	$(RUN) -m jupyterlab notebooks/00_start_here.ipynb $(AS_ROOT) $(LAB_ARGS)

test: $(STAMP)  ## unit and contract tests, then every notebook from top to bottom
	MPLBACKEND=Agg OMP_NUM_THREADS=$(THREADS) $(RUN) -m pytest $(PARALLEL)
	env -u MPLBACKEND OMP_NUM_THREADS=$(THREADS) $(RUN) -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=$(CELL_TIMEOUT) \
		$(PARALLEL) --dist loadfile notebooks

long: $(STAMP)  ## what takes minutes: sixty killed trainings, every family of timm
	MPLBACKEND=Agg OMP_NUM_THREADS=$(THREADS) $(RUN) -m pytest -m long $(PARALLEL) tests

lint: $(STAMP)  ## style (notebooks too), types, spelling and links
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) .ci/check_texts.py

browser: $(STAMP)  ## JupyterLab in headless Chromium; pictures of it land in build/browser
	$(RUN) -m pytest -m browser -rs tests/browser

notebooks: $(STAMP)  ## run all (or NOTEBOOKS=...) and store their outputs; with one thread they repeat
	env -u MPLBACKEND OMP_NUM_THREADS=1 $(RUN) .ci/run_notebooks.py $(NOTEBOOKS)

handout: $(STAMP)  ## an edition of the course without solutions, in build/handout
	rm -rf build/handout
	$(RUN) .ci/handout.py build/handout

clean:  ## remove what tests and tools left behind; .venv and data stay
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find kdlib tests notebooks -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): pyproject.toml | $(VENV)/bin/pip
	@echo "Installing kdlib and what it needs into $(VENV); the first time this takes some minutes."
	$(RUN) -m pip install -qq $(PIP_ARGS) -e '.[lab,dev]'
	@touch $@

$(VENV)/bin/pip:
	@test -n "$(PYTHON)" || { echo "No Python 3.10 or newer found. Install one, or name it: make lab PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "$(PYTHON) does not run or is older than 3.10. Name another: make lab PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments: ensurepip is missing. On Debian or Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
