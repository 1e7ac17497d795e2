# Bellwether. `make` alone tells what there is.
#
# Every target fetches what it needs and the machine lacks (protoc, etcd, Kubernetes, PostgreSQL, Helm, linters) into .cache, without
# root: see scripts/tools.sh. Needed beforehand: Rust (rustup or a package), make, git; Python for lint and for tests/peers; Go
# for lint, for the tests with a kube-apiserver and tests/peers, and where there is no etcd package.

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
# How long `make faults` goes on beginning trials: 90s, 10m, 1h; and the seed that a run has printed, to repeat its order.
DURATION ?= 10m
SEED ?=
# Only these faults, alone: `make faults ONLY='sidecar killed,no space'`.
ONLY ?=
# More arguments for the demo: `make demo ARGS='--ttl 15s --trials 20' SCENARIO=term`.

# The simulation: how many seeds or which (10000, 100..200), or with SEED the story of one, less some of its faults (3,7-9); in
# one weather; without a protection.
SEEDS ?= 1000
WEATHER ?=
LEAVE_OUT ?=
CONTROL ?=

# What builds the image.
IMAGE_BUILDER ?= docker build

WITH := scripts/tools.sh with
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

.PHONY: help
help: ## Show this help
	@printf 'Bellwether: leader-election sidecar for Kubernetes, on etcd\n\nUsage: make TARGET [VARIABLE=VALUE…]\n\n'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\nVariables: SCENARIO=kill|pause|resign|term|etcd-restart (demo)  ETCD=etcd|etcd-3.6 (demo, test, faults)  DURATION=… SEED=… ONLY=… (faults)\n'
	@printf '           SEEDS=… SEED=… WEATHER=storm|operators|old-revokes|fading|handovers|restarts|copies LEAVE_OUT=… CONTROL=… (simulate)\n'
	@printf '           ARGS=… (demo, test, bench, bench-push, simulate)\n'
	@printf '\nThe first test builds a kube-apiserver from source, which takes a quarter of an hour; KUBEBUILDER_ASSETS names a folder that\n'
	@printf "has one. Tests that need none do not wait for it: make test ARGS='--test core', ARGS=--lib. All of it is kept in .cache.\n"

.PHONY: demo
demo: ## Three sidecars elect a leader on a real etcd: watch, curl, kill (SCENARIO=kill: unattended)
	@$(WITH) protoc $(ETCD) -- scripts/demo.sh $(if $(SCENARIO),--scenario $(SCENARIO)) $(ARGS)

.PHONY: test
test: ## Every test, against a real etcd and a real Kubernetes; the last line is the total
	@set -f; $(WITH) protoc $(ETCD) $$(scripts/test.sh --tools $(ARGS)) -- scripts/test.sh $(ARGS)

.PHONY: simulate
simulate: ## Simulated elections, SEEDS=10000 of them, on all cores (SEED=17 WEATHER=storm: one, with its story; ARGS=--help)
	@$(WITH) protoc -- cargo run --quiet --locked --profile simulate --package simulation --bin simulate \
	  $(if $(CONTROL),--features sabotage) -- $(if $(SEED),--seed '$(SEED)',--seeds '$(SEEDS)') \
	  $(if $(WEATHER),--weather '$(WEATHER)') $(if $(LEAVE_OUT),--leave-out '$(LEAVE_OUT)') \
	  $(if $(CONTROL),--control '$(CONTROL)') $(ARGS)

.PHONY: faults
faults: ## Sidecars and etcd broken at random for DURATION (10m), repeatable by SEED; report and picture in target/faults
	@$(WITH) protoc $(ETCD) faults -- env BELLWETHER_FAULTS_DURATION=$(DURATION) BELLWETHER_FAULTS_SEED=$(SEED) \
	  BELLWETHER_FAULTS_ONLY='$(ONLY)' \
	  BELLWETHER_FAULTS_FOLDER=target/faults cargo test --quiet --locked --features sabotage --test faults -- \
	  --exact mixed::whatever_breaks_alone_or_together_at_most_one_leads_and_somebody_leads_again --nocapture

.PHONY: lint
lint: ## Formatting, clippy, dependencies, the core's purity, scripts, YAML, charts and manifests, spelling
	@$(WITH) protoc helm kubectl lint -- scripts/lint.sh

.PHONY: generate
generate: ## Write anew what `make lint` compares: the READMEs of the charts, the manifests rendered from them
	@$(WITH) helm kubectl lint -- scripts/lint-charts.sh --write

.PHONY: bench
bench: build ## Size, memory, handover times of the release binary (ARGS=100: that many trials)
	@$(WITH) protoc $(ETCD) -- env BELLWETHER_BIN=target/release/bellwether cargo run --quiet --locked --example figures -- $(ARGS)

.PHONY: bench-push
bench-push: ## How fast news reaches who waits for it, and what a thousand streams cost who polls (ARGS=2000: that many changes)
	@$(WITH) protoc -- cargo run --quiet --locked --release --example push -- $(ARGS)

.PHONY: build
build: ## The release binary: target/release/bellwether
	@$(WITH) protoc -- cargo build --release --locked

.PHONY: image-binary
image-binary: ## What the image holds, in target/image, by the very steps of the Dockerfile but without an image builder
	@$(WITH) protoc -- scripts/image-stages.sh

.PHONY: image-contents
image-contents: ## What the image holds, listed with sizes; fails above 10 MB
	@$(WITH) protoc -- scripts/image-contents.sh

.PHONY: image
image: ## The image, bellwether:<version>, with Docker, or with IMAGE_BUILDER='podman build'
	$(IMAGE_BUILDER) --tag bellwether:$(VERSION) --build-arg VERSION=$(VERSION) \
	  --build-arg REVISION=$$(git rev-parse HEAD) --build-arg CREATED=$$(git log -1 --format=%cI) .

.PHONY: clean
clean: ## Remove what was built and fetched
	rm -rf target .cache
