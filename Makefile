# Everything from a fresh clone: `make demo` shows it, `make test` proves it. Needs Python 3.10+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The trainers and loggers that Steelyard works with are large: they live in an environment of their own.
FRAMEWORKS := .venv-integrations
FRAMEWORKS_READY := $(FRAMEWORKS)/.ready
# The oldest Python and torch that are promised, for the balancing half.
OLDEST_PYTHON ?= python3.10
OLDEST := .venv-oldest
OLDEST_READY := $(OLDEST)/.ready
# What builds the site: an environment of its own as well.
DOCS := .venv-docs
DOCS_READY := $(DOCS)/.ready
# Where `make dist` installs what it has built: nothing but what the wheel asks for.
INSTALLED := .venv-dist
# One thread per process: trials and test workers run side by side.
export OMP_NUM_THREADS := 1
# What a process has compiled is there for the next one, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE
# A test file stays with one of the processes until another has nothing left: what its tests share is made once.
# One process more than two cores: while one waits for ranks, workers or the command, the others go on.
TESTS := -m pytest -n 3 --dist worksteal

.PHONY: demo test slow quick slowest types typed lint test-integrations slow-integrations test-oldest check dist docs docs-links benchmark mutation clean

demo: $(READY)
	$(BIN)/steelyard compare digits --methods single-task,equal,dwa,uw,ema,db-mtl,equal@cross-stitch --seeds 10 \
		--workers 2 --store demo.sqlite --page demo.html

test: check
	$(BIN)/python $(TESTS) -m "not slow"

# Proofs by simulation, fuzzing and killing again and again; all other methods where `make test` takes one of each kind.
slow: $(READY)
	$(BIN)/python $(TESTS) -m slow

# The core, and what the change at hand touches, in at most 45 s each.
quick: $(READY)
	$(BIN)/python tests/quick.py

# The twenty tests that take longest, each with its reason.
slowest: $(READY)
	$(BIN)/python $(TESTS) --slowest 20 | sed -n '/slowest/,$$p'

test-integrations: $(FRAMEWORKS_READY)
	$(FRAMEWORKS)/bin/python $(TESTS) -rs --disable-warnings -m "not slow" tests/integrations \
		tests/study/running/engines/test_every_engine.py

# The engines' studies that are killed again and again.
slow-integrations: $(FRAMEWORKS_READY)
	$(FRAMEWORKS)/bin/python -m pytest -rs --disable-warnings -m slow tests/integrations \
		tests/study/running/engines/test_every_engine.py

test-oldest: $(OLDEST_READY)
	$(OLDEST)/bin/python $(TESTS) -rs --disable-warnings tests/balancing tests/base tests/distributed tests/gradients \
		tests/loops tests/methods tests/testing tests/test_method_registry.py --ignore=tests/methods/test_against_torchjd.py

# Two at a time: without its cache mypy takes half a minute of one core.
check: $(READY)
	@$(MAKE) --no-print-directory -j2 lint types typed

types: $(READY)
	$(BIN)/mypy

typed: $(READY)
	$(TYPED)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

# A caller's program under strict types, without this repository's settings: py.typed and the annotations hold there.
TYPED = $(BIN)/mypy --strict --config-file= --cache-dir=.mypy_cache/typed tests/typed_use.py

# The wheel and the sdist, and the wheel in an environment that has nothing else: alone, then with the command.
dist: $(READY)
	rm -rf dist $(INSTALLED)
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv $(INSTALLED)
	$(INSTALLED)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/*.whl
	$(INSTALLED)/bin/python -I tests/installed.py dist
	$(TYPED) --python-executable $(INSTALLED)/bin/python
	$(INSTALLED)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		"steelyard[study] @ file://$$(ls $(CURDIR)/dist/*.whl)"
	$(INSTALLED)/bin/steelyard --version
	$(INSTALLED)/bin/steelyard compare digits --methods single-task,equal --dry-run

# Changes the code one token at a time: does a test notice? Half an hour; FILES="numbers forest" SAMPLE=0 tries all of these.
SAMPLE ?= 12
mutation: $(READY)
	$(BIN)/python tests/mutation.py --sample $(SAMPLE) $(FILES)

# The site, into site/; warnings are errors. The gallery runs when it is built.
docs: $(DOCS_READY)
	$(DOCS)/bin/python -m sphinx -W --keep-going -q -b html docs site

# Links to elsewhere too: needs a network.
docs-links: $(DOCS_READY)
	$(DOCS)/bin/python -m sphinx -q -b linkcheck docs site/links

benchmark: $(READY)
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/weighting.py

clean:
	rm -rf $(VENV) $(FRAMEWORKS) $(OLDEST) $(DOCS) $(INSTALLED) site demo.sqlite* demo.html build dist mutants

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[study,dev]"
	touch $@

$(FRAMEWORKS_READY): pyproject.toml constraints-integrations.txt
	$(PYTHON) -m venv $(FRAMEWORKS)
	$(FRAMEWORKS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-integrations.txt \
		-e ".[integrations]"
	touch $@

$(DOCS_READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[study,docs]"
	touch $@

$(OLDEST_READY): pyproject.toml constraints-oldest.txt
	$(OLDEST_PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt \
		-e . pytest pytest-xdist hypothesis quadprog scipy
	touch $@
