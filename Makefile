# Two commands do everything on a fresh Debian machine: `make demo` and `make test`.
# What is done already is not done again: stamps lie in the virtual environment.

VENV := .venv
PYTHON := $(VENV)/bin/python
LSTMFIT := $(VENV)/bin/lstmfit
DEMO := chains/mock_25mK
SOURCES := setup.cfg pyproject.toml

.PHONY: demo test test-ci test-slow test-floors lint docs wheel clean tools browser

demo: $(VENV)/.fit $(VENV)/.polychord
	OMP_NUM_THREADS=1 $(LSTMFIT) fit mock_25mK -o $(DEMO) --resume
	@echo "Pictures: $(DEMO)/corner.png and $(DEMO)/signal.png; figures: $(DEMO)/summary.json"

test: $(VENV)/.test $(VENV)/.polychord
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy lstmfit likelihoods priors
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -m "not slow" -n 2 --dist loadgroup --durations=15

test-slow: $(VENV)/.test $(VENV)/.polychord $(VENV)/.browser
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -m slow --durations=15

# Slow tests that CI runs.
test-ci: $(VENV)/.test $(VENV)/.polychord $(VENV)/.browser
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -m "slow and ci" -n 2 --dist loadgroup --durations=15

test-floors: $(VENV)/.polychord
	.ci/floors

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy lstmfit likelihoods priors

docs: $(VENV)/.docs
	$(PYTHON) -m sphinx -q -W --keep-going -c docs . build/site
	@echo "The site: build/site/index.html"

wheel: | $(PYTHON)
	$(PYTHON) -m pip install -q build
	rm -rf dist
	$(PYTHON) -m build -o dist .

# Compilers for PolyChord, MPI for parallel fits, headers for the packages that compile.
tools:
	@missing=; \
	command -v gfortran >/dev/null || missing="$$missing gfortran"; \
	command -v g++ >/dev/null || missing="$$missing g++"; \
	command -v mpif90 >/dev/null || missing="$$missing libopenmpi-dev"; \
	command -v mpirun >/dev/null || missing="$$missing openmpi-bin"; \
	python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3-venv"; \
	python3 -c 'import os, sysconfig; assert os.path.exists(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null \
	  || missing="$$missing python3-dev"; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing; \
	  else \
	    echo "lstmfit: missing$$missing; type: sudo apt-get install$$missing" >&2; exit 2; \
	  fi; \
	fi

# For the tests of the explorer, which are skipped without it: 0.5 GB.
browser:
	@for name in chromium-headless-shell chromium chromium-browser google-chrome; do \
	  command -v $$name >/dev/null && exit 0; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    chromium-headless-shell && exit 0; \
	fi; \
	echo "lstmfit: missing Chromium; type: sudo apt-get install chromium-headless-shell" >&2

$(VENV)/.browser: $(VENV)/.test | browser
	$(PYTHON) -m pip install -q -e ".[browser]"
	touch $@

$(PYTHON): | tools
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install -q --upgrade pip

$(VENV)/.fit: $(SOURCES) | $(PYTHON)
	$(PYTHON) -m pip install -q -e ".[simulate,mpi]"
	touch $@

$(VENV)/.test: $(SOURCES) | $(PYTHON)
	$(PYTHON) -m pip install -q -e ".[simulate,mpi,train-cpu,test]"
	$(PYTHON) -m pip install -q --no-deps "py21cmemu>=3"
	touch $@ $(VENV)/.fit $(VENV)/.docs

$(VENV)/.docs: $(SOURCES) | $(PYTHON)
	$(PYTHON) -m pip install -q -e ".[docs]"
	touch $@

$(VENV)/.polychord: lstmfit/sampling/polychord/build.py | $(VENV)/.fit
	$(PYTHON) -m lstmfit.sampling.polychord.build
	touch $@

clean:
	rm -rf $(VENV) .venv-floors build dist *.egg-info .pytest_cache .ruff_cache
