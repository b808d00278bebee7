# Two commands for a fresh clone with Python and make:  make demo,  make test.  A third for the patient:  make check.
PYTHON ?= python3
# A torch that is installed already (a GPU build, say) is used with:  make demo VENV_ARGS=--system-site-packages
VENV_ARGS ?=
AUDIO ?= examples/speech.flac
# Modules are compiled when they are first imported: compiling all of them takes half of the time of an installation.
PIP = python -m pip install --quiet --disable-pip-version-check --no-compile

.PHONY: demo test check core docs lint torch clean

demo: .venv/core
	.venv/bin/python examples/demo.py "$(AUDIO)" demo

# One process for each core, each with one thread: the models of the tests are small.
test: .venv/dev lint core
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto -m "not slow"

# A browser and a Ray cluster of this machine take part; where apt's chromium is missing, its test is skipped.
check: test
	.venv/bin/$(PIP) -c .venv/constraints.txt playwright 'ray[data,serve]'
	.venv/bin/python -m pytest -m slow

lint: .venv/dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# The wheel and the sdist, installed with the core's needs alone: every inference module imports, the command works.
core: .venv/dev
	rm -rf dist
	.venv/bin/python -m build --quiet
	test -x .venv-core/bin/python || $(PYTHON) -m venv .venv-core
	.venv-core/bin/$(PIP) -c constraints.txt dist/*.tar.gz
	.venv-core/bin/$(PIP) --no-deps --force-reinstall dist/*.whl
	cd dist && ../.venv-core/bin/python ../tests/core_alone.py ../examples/speech.flac

# The site, in site/: open site/index.html. Warnings are errors.
docs: .venv/dev
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict

# The codec's tests under another torch, the oldest supported or the newest. Not in CI: on Linux each brings gigabytes.
torch:
	test -x .venv-torch-$(TORCH)/bin/python || $(PYTHON) -m venv .venv-torch-$(TORCH)
	.venv-torch-$(TORCH)/bin/$(PIP) torch==$(TORCH) -e . pytest hypothesis
	.venv-torch-$(TORCH)/bin/python -m pytest -m "not slow" tests/golden tests/codec

.venv/bin/python:
	$(PYTHON) -m venv $(VENV_ARGS) .venv

# A torch that was there before stays.
.venv/constraints.txt: constraints.txt | .venv/bin/python
	$(if $(VENV_ARGS),grep -v '^torch==',cat) constraints.txt > $@

.venv/core: pyproject.toml .venv/constraints.txt
	.venv/bin/$(PIP) -c .venv/constraints.txt -e '.[plot]'
	touch $@

.venv/dev: pyproject.toml .venv/constraints.txt
	.venv/bin/$(PIP) -c .venv/constraints.txt -e '.[dev]'
	.venv/bin/$(PIP) --no-deps speechtokenizer==1.0.1
	touch $@

clean:
	rm -rf .venv .venv-core .venv-torch-* dist demo site
