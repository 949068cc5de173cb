# `make build` needs Python 3.11 or newer and a C compiler; all else comes from the lock file.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LOCK := requirements/dev.txt
VARIANT := $(HOSTLER_DEBUG_BUILD) $(HOSTLER_SANITIZE) $(HOSTLER_PURE)
# Tests wait for processes and clocks about half of their time: two workers for each processor.
WORKERS := $(shell $(PYTHON) -c 'import os; print(2 * (os.cpu_count() or 1))')
PYTEST_OPTIONS := --numprocesses $(WORKERS) --dist worksteal
# Collecting all tests takes each worker half a minute, most of it for files without a test of these.
TWIN_TESTS = $(shell grep --recursive --files-with-matches --include='test_*.py' kernel_twin tests/)
# pytest keeps what it compiles, also where the environment says that Python should not: each worker would compile all.
export PYTHONDONTWRITEBYTECODE :=
# By the package's own paths, which an unpacked source distribution has too.
ROOMS := $(addprefix src/hostler/,core drivers ext placement sim bench)
KERNELS := $(shell find -L src/hostler/ext -name '*.pyx' -o -name '*.pxd' -o -name '*.h' -o -path '*/csrc/*.c')

SANITIZE := address,undefined
SANITIZE_VENV := .venv-sanitize
SANITIZE_PRELOAD = $(shell cc -print-file-name=libasan.so) $(shell cc -print-file-name=libstdc++.so.6)

# What depends most on the versions of Python and of dependencies: decisions, arithmetic, kernels, the journal, RPC, and
# what commands print.
CORE_TESTS := $(addprefix tests/,engine weighers storage numa kernels snapshot core rpc library http/test_connection.py test_terminals.py)
# An environment for each version of Python.
SECOND_VENV = .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

.PHONY: build demo demo-cloud test test-python test-lowest lint collection docs bench sanitize wheel lock lock-lowest clean FORCE
build: $(VENV)/.kernels

%/.locked: $(LOCK)
	test -x $*/bin/python || $(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet --require-hashes -r $(LOCK)
	touch $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	HOSTLER_PURE=1 $(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@

# Rewritten only when the build is to be of another kind than the last one.
$(VENV)/.variant: $(VENV)/.locked FORCE
	@echo "$(VARIANT)" | cmp -s - $@ || echo "$(VARIANT)" > $@

$(VENV)/.kernels: $(VENV)/.installed $(VENV)/.variant setup.py $(KERNELS)
	$(BIN)/python setup.py --quiet build_ext --inplace
	$(BIN)/python -m compileall -q src/hostler/__init__.py src/hostler/__main__.py $(ROOMS)
	touch $@

demo: build
	$(BIN)/hostler demo

# Two emulated hosts, volumes and guests that boot; installs Debian packages, and says which. As root.
demo-cloud: build
	$(BIN)/python -m hostler.drivers.demo_cloud

test: build
	@$(MAKE) --no-print-directory --jobs=2 lint collection
	$(BIN)/pytest $(PYTEST_OPTIONS) tests/
	HOSTLER_PURE=1 $(BIN)/pytest $(PYTEST_OPTIONS) -m "kernel_twin and not soak" $(TWIN_TESTS)

# The core of the suite on another Python, such as `make test-python PYTHON=python3.13`.
test-python:
	$(MAKE) build VENV=$(SECOND_VENV)
	$(SECOND_VENV)/bin/pytest $(PYTEST_OPTIONS) $(CORE_TESTS)

# ... and with the oldest dependencies that pyproject.toml allows; the kernels are those of `make build`.
test-lowest: build lock-lowest
	$(MAKE) .venv-lowest/.installed VENV=.venv-lowest LOCK=requirements/lowest.txt
	.venv-lowest/bin/pytest $(PYTEST_OPTIONS) $(CORE_TESTS)

lint: build
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry $(wildcard core drivers ext placement sim) bench
	$(BIN)/deptry --ignore DEP002,DEP004 tests

# Tests that cannot be collected fail here, and what is compiled once is read by all workers.
collection: build
	@mkdir -p build
	@$(BIN)/pytest --collect-only -qq tests/ > build/collection || { cat build/collection; exit 1; }

# Into build/site, offline; a dead link is an error.
docs: build
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: build
	$(BIN)/pytest bench/ --benchmark-only

# Not editable: the instrumented kernels must not land beside the sources, where `make build` keeps its own.
sanitize: $(SANITIZE_VENV)/.locked
	rm -rf build/*/lib.*
	HOSTLER_DEBUG_BUILD=1 HOSTLER_SANITIZE=$(SANITIZE) $(SANITIZE_VENV)/bin/python -m pip install \
		--quiet --no-build-isolation --no-deps --force-reinstall .
	LD_PRELOAD="$(SANITIZE_PRELOAD)" ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
		$(SANITIZE_VENV)/bin/python -P -m pytest -p no:cacheprovider --capture=sys -m "property and not soak" tests/

wheel: $(VENV)/.locked
	rm -rf build/*/lib.*
	$(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist .

# Hashes for every CPython from 3.11 to 3.13 on Linux. The first time it needs a `uv` on the path: VENV has one later.
# libvirt-python is left out: it is built against the libvirt of the system, which not every machine has.
lock:
	$(or $(wildcard $(BIN)/uv),uv) pip compile pyproject.toml --all-extras --no-emit-package libvirt-python \
		--universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --upgrade --custom-compile-command "make lock" --output-file $(LOCK)

# Resolves to the oldest versions that pyproject.toml allows; `make test-lowest` tests them.
lock-lowest:
	$(or $(wildcard $(BIN)/uv),uv) pip compile pyproject.toml --all-extras --no-emit-package libvirt-python \
		--python-version 3.11 --resolution lowest-direct --generate-hashes --quiet --no-emit-index-url --output-file requirements/lowest.txt

clean:
	rm -rf build dist $(VENV) $(SANITIZE_VENV) .venv-lowest .venv-3.* src/*.egg-info ext/*.so .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
