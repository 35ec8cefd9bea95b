# The two commands:  make book  (read it)   make test  (check it).  Both do their own set-up in .venv/.
#   make book EDITION=smoke   execute every chapter afresh on simulated data and render that edition
#   make validate             re-execute the chapters on the real data (fetched, or from SCPRIMER_MIRROR) and compare
#   make course-test          make the course kit of all chapters and grade it with nbgrader
#   make hub                  a JupyterHub and a JupyterLab on this machine: log in, pull, run chapters, hand in (needs npm)
#   make gpu                  execute the chapters in the profile `full` and keep their records
#   make fresh                a chapter in a plain environment, set up by its own first cell, as on Colab
#   make test-latest          units and smoke chapters with the newest versions that are allowed, in .venv-latest/
PYTHON  ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,$(shell $(p) -c 'import sys; (3,11,5) <= sys.version_info[:3] < (3,14) and print("$(p)")' 2>/dev/null)))
EDITION ?= standard
WORKERS ?= 2
VENV    := .venv
BIN     := $(VENV)/bin
PIP     := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
EXTRA   := $(BIN)/python -c 'import sys, tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]])'
SITE    := _build/html

# Numerical libraries use one thread a process: chapters run side by side, and threads that fight for cores cost far more.
# And glibc keeps freed memory instead of giving it back at every training step (see scprimer/publish/job.py).
KEEP_MEMORY := MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=1073741824
ONE_THREAD := $(KEEP_MEMORY) OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1

.PHONY: help book test lint unit notebooks site browser hub validate gpu course-test fresh test-latest clean
.DEFAULT_GOAL := help

help:
	@sed -n '1,/^PYTHON/{/^#/p}' Makefile

ifeq ($(EDITION),standard)
book: $(VENV)/.book
	$(BIN)/scprimer build
else
book: $(VENV)/.all
	$(ONE_THREAD) $(BIN)/scprimer build --edition $(EDITION) --workers $(WORKERS)
endif

test: lint unit course-test notebooks site browser

lint: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

unit: $(VENV)/.all
	$(ONE_THREAD) $(BIN)/python -m pytest tests -m "not browser and not course and not fresh and not hub" -n $(WORKERS) --dist loadfile

notebooks: $(VENV)/.all
	$(ONE_THREAD) SCPRIMER_PROFILE=smoke $(BIN)/python -m pytest notebooks --nbval-lax --nbval-current-env --nbval-sanitize-with tests/nbval.cfg \
		--nbval-cell-timeout=120 -n $(WORKERS) --dist loadfile -p no:cacheprovider

site: $(VENV)/.all
	$(BIN)/scprimer build

browser: $(VENV)/.all site
	@sh tests/browser/chromium.sh
	@sh tests/browser/axe.sh
	SCPRIMER_SITE=$(SITE) $(BIN)/python -m pytest tests/browser -n $(WORKERS)

# What is missing here is an error, and not a reason to skip: whoever asks for the hub wants to see it.
hub: export SCPRIMER_REQUIRE_BROWSER = 1
hub: $(VENV)/.hub
	@sh tests/browser/chromium.sh
	@sh tests/hub/proxy.sh
	$(ONE_THREAD) $(BIN)/python -m pytest tests/hub --durations 0

validate: $(VENV)/.all
	$(ONE_THREAD) SCPRIMER_PROFILE=standard $(BIN)/python -m pytest notebooks --nbval-lax --nbval-current-env --nbval-sanitize-with tests/nbval.cfg \
		--nbval-cell-timeout=1200 -n $(WORKERS) --dist loadfile -p no:cacheprovider

gpu: $(VENV)/.all
	$(BIN)/scprimer run --all --profile full --keep-record

course-test: $(VENV)/.all
	$(ONE_THREAD) $(BIN)/python -m pytest tests/publish/test_course_grading.py -n $(WORKERS)

fresh: $(VENV)/.all
	$(ONE_THREAD) $(BIN)/python -m pytest tests/runners

# Without constraints.txt, in an environment of its own that is brought up to date each time. What is compared with the pins is
# left out; an output may differ from the stored one, so only failures of cells and claims count (nbval-lax).
LATEST := .venv-latest
test-latest: $(LATEST)/bin/python
	PYTHONWARNINGS=ignore $(LATEST)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager pip torch
	PYTHONWARNINGS=ignore $(LATEST)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable ".[reference,run,book,dev]"
	$(LATEST)/bin/python -m pip list --format=freeze > $(LATEST)/versions.txt
	$(ONE_THREAD) $(LATEST)/bin/python -m pytest tests -m "not browser and not course and not fresh and not hub" -n $(WORKERS) --dist loadfile \
		--deselect tests/test_environment.py::test_what_is_installed_here_is_what_is_pinned
	$(ONE_THREAD) SCPRIMER_PROFILE=smoke $(LATEST)/bin/python -m pytest notebooks --nbval-lax --nbval-current-env --nbval-sanitize-with tests/nbval.cfg \
		--nbval-cell-timeout=120 -n $(WORKERS) --dist loadfile -p no:cacheprovider

$(LATEST)/bin/python:
	@test -n "$(PYTHON)" || { echo "scprimer needs Python 3.11 (3.11.5 or newer), 3.12 or 3.13 and found none: install one, or name it: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(LATEST)

clean:
	rm -rf _build build dist *.egg-info .pytest_cache .ruff_cache

# ---- set-up ----------------------------------------------------------------------------------------------------------
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "scprimer needs Python 3.11 (3.11.5 or newer), 3.12 or 3.13 and found none: install one, or name it: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip

# Rendering needs no science stack: the extra `book`, and the package itself without its dependencies.
$(VENV)/.book: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) $$($(EXTRA) book)
	$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/.all: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch
	$(PIP) --editable ".[reference,run,book,dev]"
	@touch $@ $(VENV)/.book

$(VENV)/.hub: $(VENV)/.all
	$(PIP) $$($(EXTRA) hub)
	@touch $@
