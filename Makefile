# Bellwether. `make` alone tells what there is.
#
# Every target fetches what it needs and the machine lacks (protoc, etcd, linters) into .cache, without root:
# see scripts/tools.sh. Needed beforehand: Rust (rustup or a package), make, git; Go only where there is no etcd package.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The etcd to test against: `etcd` is the machine's own or Debian's, `etcd-3.6` is built from source.
ETCD ?= etcd
# More arguments for the tests: `make test ARGS='--lib election'`.
ARGS ?=
# What the demo breaks, unattended: kill, pause, resign, term, etcd-restart. Empty: by key press.
SCENARIO ?=
# More arguments for the demo: `make demo ARGS='--ttl 15s --trials 20' SCENARIO=term`.

WITH := scripts/tools.sh with

.PHONY: help
help: ## Show this help
	@printf 'Bellwether: leader-election sidecar for Kubernetes, on etcd\n\nUsage: make TARGET [VARIABLE=VALUE…]\n\n'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\nVariables: SCENARIO=kill|pause|resign|term|etcd-restart (demo)  ETCD=etcd|etcd-3.6 (demo, test)  ARGS=… (demo, test, bench)\n'

.PHONY: demo
demo: ## Three sidecars elect a leader on a real etcd: watch, curl, kill (SCENARIO=kill: unattended)
	@$(WITH) protoc $(ETCD) -- scripts/demo.sh $(if $(SCENARIO),--scenario $(SCENARIO)) $(ARGS)

.PHONY: test
test: ## Every test, against a real etcd; the last line is the total
	@$(WITH) protoc $(ETCD) -- scripts/test.sh $(ARGS)

.PHONY: lint
lint: ## Formatting, clippy, dependencies, the core's purity, scripts, YAML, spelling
	@$(WITH) protoc lint -- scripts/lint.sh

.PHONY: bench
bench: build ## Size, memory, handover times of the release binary (ARGS=100: that many trials)
	@$(WITH) protoc $(ETCD) -- env BELLWETHER_BIN=target/release/bellwether cargo run --quiet --locked --example figures -- $(ARGS)

.PHONY: build
build: ## The release binary: target/release/bellwether
	@$(WITH) protoc -- cargo build --release --locked

.PHONY: clean
clean: ## Remove what was built and fetched
	rm -rf target .cache
