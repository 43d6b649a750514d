# Everything one does with a checkout. `make` alone lists the targets.
#   HOST_PYTHON=python3.12 make install   another interpreter (3.11 or newer)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

HOST_PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTHON := $(BIN)/python
INSTALLED := $(VENV)/.installed

# The demonstration boots virtual machines; the tests also build a Debian guest to run themselves in.
DEMO_PACKAGES := python3-venv qemu-system-x86 seabios
TEST_PACKAGES := $(DEMO_PACKAGES) buildah debian-archive-keyring debootstrap e2fsprogs git iproute2
SYSTEM_PACKAGES := $(TEST_PACKAGES)

# What mypy reads: every package that is there, and what is beside them.
SOURCES := $(wildcard peacemaker kube/peacemaker_kube nodeagent/peacemaker_nodeagent operator/peacemaker_operator tools tests bench)
# Each bench/NAME.py is one benchmark: `make bench-NAME`.
BENCHES := $(patsubst bench/%.py,bench-%,$(wildcard bench/[a-z]*.py))

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: SYSTEM_PACKAGES := $(DEMO_PACKAGES)
demo: need-root system-packages install ## See it work: real VMs fight for one CPU, the agent keeps the peace (root)
	PYTHONPATH=tools $(PYTHON) -m demo

.PHONY: test
test: need-root system-packages check test-cluster test-chart test-node test-kernel test-guest ## The whole truth: all the tests below, on this host and in a cgroup v2 guest (root)

.PHONY: check
check: format-check lint types unit ## Format, lint, types and unit tests: under a minute, no root

.PHONY: install
install: $(INSTALLED) ## Make .venv with the console scripts, from locked packages

# pyproject.toml holds the console scripts and folders of the editable install.
$(INSTALLED): requirements/dev.txt pyproject.toml
	@$(HOST_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(HOST_PYTHON) is older than 3.11: set HOST_PYTHON to a newer one" >&2; exit 1; }
	$(HOST_PYTHON) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: format
format: install ## Format the code and fix what the linter can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: format-check
format-check: install
	$(BIN)/ruff format --check .

.PHONY: lint
lint: install
	$(BIN)/ruff check .

.PHONY: types
types: install
	$(BIN)/mypy $(SOURCES)

.PHONY: unit
unit: install ## Unit and property tests
	$(PYTHON) -m pytest -n auto tests/unit

.PHONY: test-cluster
test-cluster: install ## Tests against a real kube-apiserver and etcd, built from Go modules the first time (minutes)
	$(PYTHON) -m pytest tests/cluster

.PHONY: test-chart
test-chart: install ## Tests of the chart, Kustomize and GitOps files with helm, kubeconform and a real API server
	$(PYTHON) -m pytest tests/chart

.PHONY: test-node
test-node: need-root system-packages install ## Build both images, and helm install them on a real kubelet (root)
	$(PYTHON) -m pytest tests/node

.PHONY: chart-docs
chart-docs: install ## Write what follows from the chart: its README, its copies of CRDs and policies, deploy/base
	PYTHONPATH=tools $(PYTHON) -m chartfiles

.PHONY: test-kernel
test-kernel: need-root system-packages install ## Kernel tests on this host's own cgroups (root)
	$(PYTHON) -m pytest tests/kernel

# Two boots: Figure 7 wants a machine that was just booted, the other a kernel without PSI.
GUEST := PYTHONPATH=tools $(PYTHON) -m guest run
PYTEST_IN_GUEST := python3 -m pytest -p no:hypothesispytest

.PHONY: test-guest
test-guest: need-root system-packages install ## The same kernel tests, and more, on cgroup v2 with PSI and systemd, in a Debian guest (root)
	$(GUEST) --timeout 2400 -- $(PYTEST_IN_GUEST) tests/guest tests/kernel
	$(GUEST) --append psi=0 -- $(PYTEST_IN_GUEST) tests/guest/psi_off

.PHONY: bench
bench: $(BENCHES) ## Every benchmark; `make bench-NAME` runs bench/NAME.py (root)

bench-%: bench/%.py need-root system-packages install
	PYTHONPATH=tools $(PYTHON) $<

.PHONY: image
image: SYSTEM_PACKAGES := buildah debian-archive-keyring debootstrap python3-venv
image: need-root system-packages install ## Build both images without a registry, into dist/, and say what takes how much (root)
	PYTHONPATH=tools $(PYTHON) -m image build --output dist

# apt-get runs only when a package is missing or its lists are (or are a day old: the guest is built
# from them), so that a second run needs no network.
.PHONY: system-packages
system-packages: ## Install the Debian packages that demo and test need and that are missing (root)
	@command -v apt-get >/dev/null || { \
	  echo "no apt-get here: install what gives you $(SYSTEM_PACKAGES)" >&2; exit 1; }; \
	missing=$$(for package in $(SYSTEM_PACKAGES); do \
	  dpkg-query -W -f '$${db:Status-Status}\n' $$package 2>/dev/null | grep -qx installed \
	    || echo $$package; done); \
	lists=$$(find /var/lib/apt/lists -maxdepth 0 -mtime -1 \
	  -exec find {} -maxdepth 1 -name '*Release' -print -quit \;); \
	if [ -z "$$missing" ] && [ -n "$$lists" ]; then exit 0; fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	echo "refreshing the package lists"; \
	apt-get update -qq -o DPkg::Lock::Timeout=300; \
	if [ -n "$$missing" ]; then \
	  echo "installing:" $$missing; \
	  apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 \
	    -o Dpkg::Use-Pty=0 $$missing </dev/null; fi

.PHONY: need-root
need-root:
	@[ "$$(id -u)" = 0 ] || { echo "make $(or $(MAKECMDGOALS),$@) writes to cgroups and other" \
	  "people's processes: run it as root (make check needs none)" >&2; exit 1; }

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --custom-compile-command 'make lock'

.PHONY: lock
lock: install ## Write requirements/*.txt and the image build's anew (UPGRADE=1 takes newer versions)
	$(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml --extra agent -o requirements/agent.txt
	$(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml --extra operator -c requirements/agent.txt -o requirements/operator.txt
	$(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml --extra agent --group test -c requirements/agent.txt -o requirements/test.txt
	$(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml --all-extras --group dev -c requirements/test.txt -c requirements/operator.txt -o requirements/dev.txt
	$(LOCK) $(if $(UPGRADE),--upgrade) tools/image/requirements.in -c requirements/dev.txt -o tools/image/requirements.txt

.PHONY: clean
clean: ## Remove .venv and everything that tools wrote into the checkout
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
	find . -name __pycache__ -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## Remove also what is kept in the user's cache: guest, images, programs built from Go
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/peacemaker"
