# Everything starts from a bare clone. `sudo make watch` and `sudo make test` are the two commands of the README.
SHELL := /bin/bash
PYTHON ?= $(shell for p in /usr/bin/python3 python3; do "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$p"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PROBES := $(addprefix agentscope/sources/probes/,bcc.c $(foreach machine,x86_64 aarch64,$(addprefix $(machine)/,core.bpf.o examine.bpf.o)))
TRACEFS := /sys/kernel/tracing

.PHONY: help setup watch test bench fuzz test-kernels probes lint types schema man record wheel deb clean

help: ## what can be typed here
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(VENV)/.ready ## set up: packages, a venv, the probes; leaves .venv/bin/agentscope
	@[ -e $(TRACEFS)/events ] || [ "$$(id -u)" != 0 ] || mount -t tracefs tracefs $(TRACEFS) || echo "tracefs cannot be mounted: last words on terminals and pipes will not be seen"

watch: setup ## set up and show what runs and what died (needs root)
	@exec $(BIN)/agentscope watch

test: setup $(VENV)/.ready-dev ## lint, types, layers, unit, replay and live kernel tests (needs root for the live ones)
	@tests/in-lab $(MAKE) --no-print-directory checked

.PHONY: checked
checked: lint types
	$(BIN)/python -m pytest tests

bench: setup $(VENV)/.ready-dev ## measure against the budgets of the design, as ratios (needs root, about ten minutes)
	@tests/in-lab $(BIN)/python -m tests.bench

fuzz: $(VENV)/.ready-dev ## 100,000 forged files through every reader of packages and libraries; prints the count (a few minutes)
	$(BIN)/python -m tests.drift_fuzz

test-kernels: setup $(VENV)/.ready-dev ## verdicts on Debian's 6.1 and 6.12, emulated (downloads them once); AGENTSCOPE_TABLE=all: the whole zoo, for hours
	@tests/in-lab $(BIN)/python -m pytest tests/kernels -m kernels

probes: $(PROBES) ## compile the probes

lint: $(VENV)/.ready-dev ## style and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.ready-dev ## strict types
	$(BIN)/mypy

schema: setup ## write the JSON Schema of the stream anew
	$(BIN)/agentscope schema > agentscope/stream.schema.json

man: $(VENV)/.ready-dev ## write the manual pages anew from the commands' own help
	rm -rf man/man1 && mkdir man/man1
	$(BIN)/python man/pages.py man/man1

record: setup $(VENV)/.ready-dev ## record the fixtures anew from real crashes (needs root)
	@tests/in-lab $(BIN)/python -m pytest tests/live --record

wheel: $(VENV)/.ready-dev ## build a wheel that carries the compiled probes
	$(BIN)/python -m build --wheel

deb: $(VENV)/.ready-dev ## build a Debian package; with DEB_HOST_ARCH=arm64 (or amd64) for another machine than this
	@command -v dh >/dev/null || { [ "$$(id -u)" = 0 ] && DEBIAN_FRONTEND=noninteractive $(APT) install -y -qq --no-install-recommends debhelper >/dev/null; } || \
	  { echo "debhelper is missing. Try: sudo apt-get install debhelper" >&2; exit 1; }
	@rm -rf debian/agentscope debian/.debhelper; mkdir -p build
	@DEB_RULES_REQUIRES_ROOT=no debian/rules binary >build/deb.log 2>&1 || { tail -30 build/deb.log >&2; exit 1; }
	@sed -n "s/^dpkg-deb: building package .* in '\(.*\)'.$$/\1/p" build/deb.log

clean: ## forget everything that was built
	rm -rf $(VENV) dist build debian/agentscope debian/.debhelper tests/live/build agentscope/sources/probes/*/*.bpf.o agentscope/sources/probes/bcc.c

$(PROBES) &: $(wildcard bpf/*.c bpf/*.h bpf/Makefile) $(VENV)/.packages
	$(MAKE) -C bpf
	@touch $(PROBES)

# Debian packages, if anything is missing; on other systems install a compiler for BPF yourself and say APT=true
APT ?= apt-get
PACKAGES := clang llvm libbpf-dev libbpf1 bpftool python3-venv gcc libc6-dev
$(VENV)/.packages:
	@mkdir -p $(VENV)
	@missing="$$(for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done)"; \
	if [ -n "$$missing" ]; then \
	  [ "$$(id -u)" = 0 ] || { echo "These packages are missing: $$missing. Try: sudo make $(MAKECMDGOALS)" >&2; exit 1; }; \
	  echo "Installing $$missing"; export DEBIAN_FRONTEND=noninteractive; \
	  $(APT) update -qq && $(APT) install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi
	@touch $@

$(VENV)/.ready: pyproject.toml $(PROBES) $(VENV)/.packages
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or newer is missing. Try: sudo apt-get install python3" >&2; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/.ready-dev: pyproject.toml $(VENV)/.ready
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@command -v nats-server >/dev/null || (cd $(VENV) && $(APT) download -qq nats-server && dpkg -x nats-server_*.deb nats) >/dev/null 2>&1 || \
	  echo "nats-server cannot be had: the tests of a fleet are skipped"
	@command -v dh >/dev/null || DEBIAN_FRONTEND=noninteractive $(APT) install -y -qq --no-install-recommends debhelper >/dev/null 2>&1 || \
	  echo "debhelper cannot be had: the tests of the Debian package are skipped"
	@touch $@
