# Everything from the checkout goes through here; `make` alone lists the targets.
# What set-up has to say goes to stderr: stdout is the tracer's.

PYTHON ?= python3
IFACE  ?=
ARGS   ?=
KERNELS ?= all

VENV := .venv
PIP  := $(VENV)/bin/python -m pip --disable-pip-version-check --no-input
SUDO := $(shell [ "$$(id -u)" -eq 0 ] || command -v sudo)

SOURCES := $(sort $(shell find tcptrace bpf -type f -not -path '*/.*' -not -name '*.py[co]' -not -name '*.so'))

# What root makes in somebody's checkout (`sudo make …`) belongs to the checkout's owner.
give_back = [ "$$(id -u)" -ne 0 ] || chown -R --reference=Makefile

pytest = status=0; PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 $(VENV)/bin/python -m pytest $(1) || status=$$?; \
	$(give_back) -f .pytest_cache .hypothesis build; exit $$status

export PYTHON
.PHONY: help install run test test-kernels bench lint format clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20
	@echo '  PYTHON=python3.12 chooses the interpreter (3.11 or newer) that .venv is made from'

install: $(VENV)/.installed ## Install all that is needed, system packages included; leaves .venv/bin/tcptrace
	@:

run: install ## Trace as root: IFACE=eth0 (default: the default route's), ARGS="--json -d 5"
	@exec $(SUDO) $(VENV)/bin/tcptrace $(IFACE) $(ARGS)

test: install $(VENV)/.test ## Test the installed wheel, as root all of it; ARGS="-k engine" goes to pytest
	@[ "$$(id -u)" -ne 0 ] || scripts/bootstrap.sh test-tools >&2
	@[ "$$(id -u)" -ne 0 ] || scripts/bootstrap.sh kernels >&2 || true # without it, the kernel's test is skipped
	@$(call pytest,$(ARGS))

test-kernels: export TCPTRACE_KERNELS = $(KERNELS)
test-kernels: export TCPTRACE_KERNEL_ARGS = $(ARGS)
test-kernels: install $(VENV)/.test ## Boot Debian's kernels, as root, test inside; KERNELS="5.10 6.1 6.12 7.2", ARGS to the pytest inside
	@scripts/bootstrap.sh kernels >&2
	@$(call pytest,tests/kernels)

bench: install $(VENV)/.test ## Measure, as root, beside the tools people use: tables, and build/bench.json; ARGS="packet_cost overload"
	@scripts/bootstrap.sh bench >&2
	@PYTHONDONTWRITEBYTECODE=1 $(VENV)/bin/python benchmarks/run.py $(ARGS)
	@$(give_back) build

lint: $(VENV)/.test ## ruff check, ruff format --check, mypy --strict
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy --strict tcptrace

format: $(VENV)/.test ## Let ruff put the code into its format
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

clean: ## Remove all that was made here; system packages stay
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find tcptrace tests -name __pycache__ -prune -exec rm -rf {} +

# The stamps: each is as old as the start of the step it stands for, so that an edit made meanwhile counts as newer.

$(VENV)/.run: pyproject.toml scripts/bootstrap.sh
	@scripts/bootstrap.sh run >&2
	@$(give_back) $(VENV)

$(VENV)/.test: $(VENV)/.run
	@scripts/bootstrap.sh test >&2
	@$(give_back) $(VENV)

$(VENV)/.installed: $(VENV)/.run $(SOURCES) setup.py
	@echo 'tcptrace: building the wheel, installing it into $(VENV)' >&2
	@touch $@.new
	@[ '$(SOURCES)' = "$$(cat $(VENV)/.sources 2>&1)" ] || rm -rf build/lib* # setuptools would ship removed files
	@rm -rf build/wheel
	@$(PIP) wheel -q --no-deps --no-build-isolation --wheel-dir build/wheel . >&2
	@$(PIP) install -q --no-deps --force-reinstall build/wheel/*.whl >&2
	@echo '$(SOURCES)' >$(VENV)/.sources
	@$(give_back) $(VENV) build *.egg-info
	@mv $@.new $@

# Two things no time stamp shows: an interpreter that is gone, and a source that was removed.
ifneq ($(shell [ -x $(VENV)/bin/python ] && echo there),there)
.PHONY: $(VENV)/.run
endif
ifneq ($(SOURCES),$(file <$(VENV)/.sources))
.PHONY: $(VENV)/.installed
endif
