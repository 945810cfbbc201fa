# Two commands to know: `make run` and `make test`. `make verify` checks and writes nothing, `make fix` rewrites.
#
# All of them build with the same profile, the same packages and the same target folder, which lies outside the tree.
# RocksDB's C++ is the longest step of a build: .ci/rocksdb compiles it once, and every build links that library.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export CARGO_TARGET_DIR ?= $(HOME)/.cache/llm-config/target
export ROCKSDB_LIB_DIR := $(CARGO_TARGET_DIR)/rocksdb-$(shell awk '/^name = "librocksdb-sys"/ { getline; gsub(/"/, "", $$3); print $$3 }' Cargo.lock)
export ROCKSDB_STATIC := 1

CARGO := cargo
# For `make run`, as in: make run ARGS='--nodes 5'
ARGS ?=
# For `make fuzz`: the targets; all of them when empty
FUZZ ?=
# For `make test-monitoring`, as in: make test-monitoring MONITORING_ARGS='--only HighCPU --keep'
MONITORING_ARGS ?=
# For `make bench`, as in: make bench BENCH_ARGS='run --help'
BENCH_ARGS ?= table
# For `make bench-compare`, as in: make bench-compare COMPARE_ARGS='--quick --rows put-64-leader,watch-100'
COMPARE_ARGS ?=
# For `make bench-curves`, as in: make bench-curves CURVES_ARGS='--axis keys --keys-max 10000000'
CURVES_ARGS ?=
# Which etcd `make bench-compare` takes: what .ci/etcd knows
ETCD_FROM ?= trixie
# For `make bench-hot`, as in: make bench-hot HOT_ARGS=apply
HOT_ARGS ?=
# For `make jepsen`
JEPSEN_ARGS ?= run
# For `make sim`, as in: make sim SIM_ARGS='run --seed 7'
SIM_ARGS ?= sweep
# For `make jepsen-bugs`, as in: make jepsen-bugs BUGS_ARGS='--only watch-drops'
BUGS_ARGS ?=

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

.PHONY: deps
deps: ## install what the build needs beside Rust, if it is missing
	@.ci/deps
	@.ci/rocksdb

.PHONY: build
build: deps ## build the server, the command line client and the SDK
	$(CARGO) build --locked --workspace

.PHONY: run
run: build ## start a three-node cluster on this machine; Ctrl-C stops it
	@exec "$(CARGO_TARGET_DIR)/debug/llm-config-manager" dev $(ARGS)

.PHONY: test
test: deps ## run every test
	$(CARGO) test --locked --workspace
	@$(MAKE) --no-print-directory python-test

.PHONY: python-test
python-test: build ## test the Python client, also against real nodes
	@LLM_CONFIG_SERVER="$(CARGO_TARGET_DIR)/debug/llm-config-manager" .ci/python test

.PHONY: test-monitoring
test-monitoring: build ## break a cluster and see every documented alert come and go; ten minutes, wants root
	@.ci/monitoring $(MONITORING_ARGS)

.PHONY: test-monitoring-short
test-monitoring-short: build ## the part of it that takes less than three minutes
	@.ci/monitoring --short --allow-skips $(MONITORING_ARGS)

.PHONY: verify
verify: deps verify-format verify-lint verify-policy verify-docs verify-rules verify-units verify-python verify-dashboards ## all the checks that are not tests

.PHONY: verify-format
verify-format:
	$(CARGO) fmt --all --check
	rustfmt --edition 2024 --check .ci/fuzz/targets/*.rs

.PHONY: verify-lint
verify-lint:
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

# Layers, dependencies and file rules: see .ci/policy. They are part of `make test` too.
.PHONY: verify-policy
verify-policy:
	$(CARGO) test --locked --quiet --package llm-config-policy

.PHONY: verify-docs
verify-docs:
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --document-private-items

# Prometheus' rules and their tests, and Alertmanager's routes.
.PHONY: verify-rules
verify-rules:
	@.ci/rules

.PHONY: verify-units
verify-units:
	@.ci/units

# The Python client's form and types.
.PHONY: verify-python
verify-python:
	@.ci/python check

# The dashboards, and the Python below monitoring/.
.PHONY: verify-dashboards
verify-dashboards:
	@.ci/dashboards check

# Known advisories need RustSec's database, which cargo-deny fetches; without a network they are left out, and said to be.
.PHONY: deny
deny: ## check licences, sources, banned crates and known advisories with cargo-deny
	@.ci/deny

.PHONY: fuzz
fuzz: deps ## search for inputs that break a parser, FUZZ_SECONDS (30) for each target; FUZZ='command http_path' for these
	@.ci/fuzz/run $(FUZZ)

.PHONY: fix
fix: deps ## rewrite what can be rewritten: formatting, and the lints that know their own remedy
	$(CARGO) clippy --locked --workspace --all-targets --fix --allow-dirty --allow-staged
	$(CARGO) fmt --all
	rustfmt --edition 2024 .ci/fuzz/targets/*.rs

.PHONY: dashboards
dashboards: ## write monitoring/grafana/dashboards anew from their source
	@.ci/dashboards generate

.PHONY: smoke
smoke: ## run the README's commands against a running `make run`
	@cluster/smoke.sh

.PHONY: kubernetes-fix
kubernetes-fix: ## write cluster/kubernetes anew from the Helm chart, and the chart's copy of the alert rules
	@rm -f cluster/helm/llm-config-manager/files/rules/*.yml
	@cp monitoring/prometheus/rules/*.yml cluster/helm/llm-config-manager/files/rules/
	@cluster/test/kubernetes-render.sh cluster/kubernetes

.PHONY: kubernetes-test
kubernetes-test: build ## check the Helm chart and the manifests; no Kubernetes cluster needed
	@LLM_CONFIG_SERVER="$(CARGO_TARGET_DIR)/debug/llm-config-manager" cluster/test/kubernetes.sh

.PHONY: docker-test
docker-test: build ## run cluster/compose.yaml for real and break it; needs root and a Docker engine
	@cluster/test/docker.sh

.PHONY: release
release: deps ## build optimised programs
	$(CARGO) build --locked --release --workspace --bins
	@! grep -qa LLM_CONFIG_SEEDED_BUG "$(CARGO_TARGET_DIR)/release/llm-config-manager"

.PHONY: bench
bench: release ## measure a cluster of three processes on this machine. BENCH_ARGS='run --mix 95/5'
	@LLM_CONFIG_SERVER="$(CARGO_TARGET_DIR)/release/llm-config-manager" \
		"$(CARGO_TARGET_DIR)/release/llm-config-load" $(BENCH_ARGS)

.PHONY: bench-compare
bench-compare: release ## the same load for this and for etcd, in turn, with ratios and targets; an hour
	@etcd="$$(.ci/etcd $(ETCD_FROM))"; \
		LLM_CONFIG_SERVER="$(CARGO_TARGET_DIR)/release/llm-config-manager" LLM_CONFIG_ETCD="$$etcd" \
		"$(CARGO_TARGET_DIR)/release/llm-config-load" compare $(COMPARE_ARGS)

# What is measured anew takes its place among the lines that are kept; a series that gave nothing leaves the pictures alone.
.PHONY: bench-curves
bench-curves: release ## measure how cost grows along five axes, and draw docs/benchmarks; half an hour
	@mkdir -p docs/benchmarks
	@LLM_CONFIG_SERVER="$(CARGO_TARGET_DIR)/release/llm-config-manager" \
		"$(CARGO_TARGET_DIR)/release/llm-config-load" curves --record docs/benchmarks/curves.jsonl $(CURVES_ARGS)
	@"$(CARGO_TARGET_DIR)/release/llm-config-load" draw

# Nothing of these needs RocksDB, so `deps` would compile it for nothing.
.PHONY: bench-hot
bench-hot: ## time each hot function by itself, without a cluster. HOT_ARGS='apply'
	@.ci/deps
	$(CARGO) bench --locked --package llm-config-hot --bench hot -- $(HOT_ARGS)

.PHONY: instructions
instructions: ## count the instructions of each hot function, and hold them to what is recorded
	@.ci/deps valgrind
	@.ci/instructions

.PHONY: instructions-record
instructions-record: ## record what is counted now: in the commit that is meant to change it
	@.ci/deps valgrind
	@.ci/instructions --record

# What the lab is made of, if it is missing; it changes nothing of this machine's own network.
.PHONY: jepsen
jepsen: build ## break a real cluster and check its answers; root only. JEPSEN_ARGS='matrix --runs 28'
	@.ci/lab
	@LLM_CONFIG_SERVER="$(CARGO_TARGET_DIR)/debug/llm-config-manager" \
		"$(CARGO_TARGET_DIR)/debug/jepsen-lite" $(JEPSEN_ARGS)

# The fault suite in short. The bugs come last: their server has another name, and shares everything below it.
.PHONY: jepsen-short
jepsen-short: build ## two fault runs, 20 power cuts, 40 corruptions, 50 simulated seeds and three deliberate bugs; root only
	@.ci/lab
	@for part in 'matrix --runs 2 --seed 1 --nodes 3 --time 15 --faults power,partition,kill,pause' \
		'power --cuts 20 --jobs 2' 'corrupt --count 40 --jobs 2'; do \
		LLM_CONFIG_SERVER="$(CARGO_TARGET_DIR)/debug/llm-config-manager" \
			"$(CARGO_TARGET_DIR)/debug/jepsen-lite" $$part --out "$(CARGO_TARGET_DIR)/jepsen-runs"; \
	done
	@$(MAKE) --no-print-directory sim-short
	@$(MAKE) --no-print-directory jepsen-bugs BUGS_ARGS=--short

# The simulation is a workspace of its own, with the versions of the lock file at the root.
SIM := cp Cargo.lock jepsen-lite/sim/Cargo.lock && cd jepsen-lite/sim && \
	CARGO_TARGET_DIR="$(CARGO_TARGET_DIR)/sim" $(CARGO)

.PHONY: sim
sim: ## simulate clusters, the same for the same seed. SIM_ARGS='sweep --from 1 --seeds 2000', 'run --seed 7', 'prove'
	@$(SIM) run --quiet -- $(SIM_ARGS)

.PHONY: sim-short
sim-short: ## fifty seeds, one of them twice
	@$(SIM) build --quiet
	@"$(CARGO_TARGET_DIR)/sim/debug/llm-config-sim" sweep --from 1 --seeds 50
	@"$(CARGO_TARGET_DIR)/sim/debug/llm-config-sim" replay-check --seed 1

.PHONY: sim-test
sim-test: ## test the simulated disk and engine, and that deliberate mistakes are found
	@$(SIM) test --quiet --workspace
	@$(SIM) run --quiet -- prove

# All packages are named so that everything below the server is the same as in `make build`, and not built again.
.PHONY: seeded-server
seeded-server: deps ## build the server that can be told to break its promises, under a name of its own
	$(CARGO) build --locked --workspace --features llm-config-server/seeded-bugs --bin llm-config-manager-seeded

.PHONY: jepsen-bugs
jepsen-bugs: build seeded-server ## prove that the fault suite notices deliberate bugs; half an hour, root only. BUGS_ARGS='--short'
	@.ci/lab
	@LLM_CONFIG_SERVER="$(CARGO_TARGET_DIR)/debug/llm-config-manager-seeded" \
		"$(CARGO_TARGET_DIR)/debug/jepsen-lite" bugs --out "$(CARGO_TARGET_DIR)/jepsen-runs" $(BUGS_ARGS)
