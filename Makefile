# Everything from a fresh clone: `make demo` shows it, `make test` proves it. Needs Python 3.10+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# One thread per process: trials and test workers run side by side.
export OMP_NUM_THREADS := 1

.PHONY: demo test check benchmark clean

demo: $(READY)
	$(BIN)/steelyard compare digits --methods single-task,equal,dwa,uw,ema,db-mtl --seeds 5 --workers 2 \
		--store demo.sqlite --page demo.html

test: check
	$(BIN)/python -m pytest -n 2

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmark: $(READY)
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/weighting.py

clean:
	rm -rf $(VENV) demo.sqlite* demo.html build dist

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[study,dev]"
	touch $@
