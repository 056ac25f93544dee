# Two commands for a newcomer: `make demo` and `make test`. Both set up .venv on first use.
PYTHON ?= python3
BIN := .venv/bin
# compilers for accelerators that are not here: no driver, no device
AOT := build/aot
# where rounding is at stake, XLA compiles as it does for users
ROUNDING := adversary enclosure exact_zero extreme_scales projections sigma_min values
AS_SHIPPED := $(foreach name,$(ROUNDING),$(wildcard tests/test_$(name).py tests/*/test_$(name).py))

.PHONY: demo test lint types tests docs package aot bench clean

demo: .venv/.demo
	$(BIN)/python -m experiments.demo

test: lint types tests

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.dev
	$(BIN)/mypy

tests: .venv/.dev
	XLA_FLAGS="$$($(BIN)/python tests/tools/hurry.py)" $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(AS_SHIPPED:%=--ignore=%)
	$(BIN)/pytest -n 2 $(AS_SHIPPED)

# the site, without a network: pages with code are executed, warnings are errors
docs: .venv/.docs
	JAX_PLATFORMS=cpu $(BIN)/sphinx-build -q -W --keep-going -j 2 -b html -d build/doctrees docs build/docs
	$(BIN)/python docs/check_site.py build/docs

# source archive and wheel, installed without extras into an environment of their own, and tried there; needs a network
package: .venv/.dev
	rm -rf build/package
	$(BIN)/python -m build --outdir build/package .
	$(PYTHON) -m venv build/package/env
	build/package/env/bin/python -m pip install --quiet --disable-pip-version-check build/package/*.whl
	cd build/package && env/bin/python -W error ../../tests/tools/clean_install.py

aot: $(AOT)/.installed
	JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 PYTHONPATH=$(AOT) $(BIN)/pytest -n 2 --dist loadfile tests/aot

bench: .venv/.bench
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.minibatch
	$(BIN)/python -m benchmarks.spectra
	$(BIN)/python -m benchmarks.first_call
	$(BIN)/python -m benchmarks.memorize
	$(BIN)/python -m benchmarks.stationary_value
	$(BIN)/python -m benchmarks.kill
	$(BIN)/python -m benchmarks.adversary
	$(BIN)/python -m benchmarks.faults

.venv/.created:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "narrow_jax needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv
	touch $@

.venv/.%: .venv/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$*]"
	touch $@

.venv/.demo: .venv/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[data,plots]"
	touch $@

$(AOT)/.installed: .venv/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(AOT) $$($(BIN)/python -m benchmarks.compiled)
	touch $@

clean:
	rm -rf .venv runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
