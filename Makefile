# Everything that a person can do here. `make demo` and `make test` need Linux, Rust, a C compiler, Python, and Go or
# Python's package index; what else they need they build or fetch once, into a cache outside the checkout.

CACHE ?= $(or $(GEMINI_OPERATOR_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/gemini-operator)
CARGO_DENY := $(CACHE)/cargo-deny-0.20.2/bin/cargo-deny
CARGO_FUZZ := $(CACHE)/cargo-fuzz-0.13.2/bin/cargo-fuzz

export GEMINI_OPERATOR_CACHE := $(CACHE)

.PHONY: help
help: ## This list.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: ## The main job on this machine. KEEP=1: leave it up. CLUSTER=current: on kubectl's cluster.
	@testenv/check.sh
	@echo "==> building what is missing (Go and Rust side by side; minutes the first time)"
	@$(MAKE) --no-print-directory --jobs=2 demo-rust $(if $(CLUSTER),,testenv-controlplane)
	@[ -n "$(KUBECTL)" ] || testenv/kubectl.sh > /dev/null
	@KEEP='$(KEEP)' CLUSTER='$(CLUSTER)' CLEAN='$(CLEAN)' cargo run --quiet --locked --example demo

# By make and not by a shell's `&`: Ctrl-C ends both.
.PHONY: demo-rust testenv-controlplane
demo-rust:
	@cargo build --locked --workspace --bins --example demo
testenv-controlplane:
	@testenv/controlplane.sh > /dev/null

# Tests mostly wait, so more of them than cores run side by side.
.PHONY: test
test: ## All tests, on a real control plane and, where that is possible, on a real node.
	@testenv/check.sh
	@$(MAKE) --no-print-directory model
	@$(MAKE) --no-print-directory e2e-node
	@$(MAKE) --no-print-directory chaos
	@testenv/ingress.sh > /dev/null
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-6} cargo test --locked --workspace --no-fail-fast

# Before the other tests, so that the last lines of `make test` are those of the test runner. 77: no node can run here;
# one line has said why.
.PHONY: e2e-node
e2e-node: ## The chart on a real node, deliveries from outside (Linux, root; skipped elsewhere). NODE_LOAD=full: more of them.
	@testenv/node/tests.sh || [ $$? -eq 77 ]

# Tests with a case of their own for each crash point: progress is shown, as they take minutes.
.PHONY: chaos
chaos: ## Processes that die at each step of a batch and of a webhook. MATRIX=full: all cases. CASE=…: some.
	@testenv/controlplane.sh > /dev/null
	@testenv/kubectl.sh > /dev/null
	MATRIX='$(MATRIX)' CASE='$(CASE)' cargo test --quiet --locked --workspace --features failpoints --test chaos -- --nocapture

.PHONY: model
model: ## The submission protocol, explored state by state. FULL=1: all of it, an hour and 12 GB.
	@cargo run --quiet --locked --profile model --package gemini-operator-model -- \
	  $(if $(FULL),--full --write docs/never-pay-twice.md)

# Optimised, so that two cores can make the load. Without the fence it has to fail: then it has seen the jobs that were paid
# twice.
.PHONY: storm
storm: ## 500 batches, 200 kills, lost and late requests. SEED=N: that one again. FENCE=off: must end with duplicates.
	@testenv/controlplane.sh > /dev/null
	@testenv/kubectl.sh > /dev/null
	@cargo test --quiet --locked --profile model --test storm $(if $(filter off,$(FENCE)),--features failpoints) -- \
	  --seed $(or $(SEED),$$(date +%s)) --divisor 100 $(if $(filter off,$(FENCE)),--batches 60 --kills 25 --late 25 --fence off, \
	  --batches 500 --kills 200 --record docs/storm.tsv --page docs/never-pay-twice.md)

# Optimised, because it is about what a receiver bears. A shell's usual 1 024 open files are too few.
.PHONY: abuse
abuse: ## 10 000 slow sockets, forged deliveries, unknown keys and what else strangers send; honest deliveries beside them.
	@testenv/controlplane.sh > /dev/null
	@testenv/kubectl.sh > /dev/null
	@testenv/ingress.sh > /dev/null
	@ulimit -n 16384 2> /dev/null; ABUSE=full cargo test --quiet --locked --profile model --test e2e \
	  -- --nocapture --test-threads 1 strangers_do_not_disturb_honest_deliveries unknown_keys_cause_one_call_a_minute

# One after the other: they measure.
.PHONY: waiting
waiting: ## Calls in an hour for 10, 100 and 1 000 waiting jobs, and what lost deliveries cost; into docs/benchmarks.md.
	@testenv/controlplane.sh > /dev/null
	@testenv/kubectl.sh > /dev/null
	@WAITING=full WAITING_PAGE='$(CURDIR)/docs/benchmarks.md' cargo test --quiet --locked --profile model --test e2e -- \
	  --nocapture --test-threads=1 waiting_costs_a_hundredth_of_polling_and_less \
	  while_few_deliveries_are_lost_an_end_is_seen_at_once with_every_delivery_lost_all_batches_complete_by_the_sweep

# A small one of each is part of `make test`. One after the other: each wants the machine for itself.
.PHONY: load
load: ## 10 000 deliveries through restarts, a rotation every 2 s under 50 a second, a flood by a neighbour.
	@testenv/controlplane.sh > /dev/null
	@testenv/kubectl.sh > /dev/null
	@ulimit -n 16384 2> /dev/null; LOAD=full cargo test --quiet --locked --profile model --test e2e -- --nocapture \
	  --test-threads 1 a_rolling_restart_fails_no_delivery rotation_at_once_loses_no_delivery \
	  rotation_with_grace_loses_no_delivery_whatever_signs a_neighbour_who_floods_starves_nobody

.PHONY: bench
bench: ## The receiver beside its peers, in turns; writes docs/benchmarks.md. Wants two cores and nothing else running.
	@testenv/controlplane.sh > /dev/null
	@testenv/kubectl.sh > /dev/null
	@benches/peers/venv.sh > /dev/null
	@cargo bench --quiet --locked --profile model --bench receiver -- --page docs/benchmarks.md

# What reads bytes of strangers. The pinned compiler will do: of what libFuzzer needs, only sanitizers are unstable, and
# there is no unsafe code here for them to look at. What is found is kept in fuzz/artifacts, and the next run starts from
# fuzz/corpus.
.PHONY: fuzz
fuzz: ## Verifier, JWT, JWKS, event and path under libFuzzer. FUZZ_TIME=20: seconds each. TARGET=…: one.
	@$(MAKE) --no-print-directory $(CARGO_FUZZ)
	@for target in $(or $(TARGET),verify jwt jwks event path); do \
	  mkdir -p fuzz/corpus/$$target; seeds=$$(ls -d fuzz/seeds/$$target 2> /dev/null); \
	  $(CARGO_FUZZ) run --sanitizer none --fuzz-dir fuzz $$target fuzz/corpus/$$target $$seeds -- \
	    -max_total_time=$(or $(FUZZ_TIME),20) -print_final_stats=1 -verbosity=0 || exit 1; \
	  echo "==> fuzz $$target: nothing found in $(or $(FUZZ_TIME),20) s"; \
	done

.PHONY: image
image: ## A container image of the operator, without Docker, as an archive.
	@archive=$$(testenv/image/operator.sh) && printf '%s\n' "$$archive" "load it with one of" \
	  "  docker load --input $$archive        (podman load …)" \
	  "  kind load image-archive $$archive    (minikube image load …)" \
	  "  ctr --namespace k8s.io images import $$archive" \
	  "  skopeo copy oci-archive:$$archive docker://REGISTRY/gemini-operator:TAG"

.PHONY: fmt
fmt: ## Format the code.
	cargo fmt --all

.PHONY: lint
lint: ## Format check, clippy, dependency rules.
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --workspace --features failpoints --lib --bins --test chaos --test cli -- -D warnings
	@$(MAKE) --no-print-directory $(CARGO_DENY)
	$(CARGO_DENY) --all-features check bans licenses sources

.PHONY: generate
generate: ## Write the generated files: crds/ and deploy/install.yaml.
	deploy/generate.sh

.PHONY: ci
ci: lint test ## What a change must pass. Generated files are compared by `make test`.

# Kept outside the checkout: its build takes minutes, and its version is pinned.
$(CARGO_DENY):
	@echo "==> building cargo-deny 0.20.2 (3 to 5 minutes, once)"
	@CARGO_TARGET_DIR=$(CACHE)/cargo-deny-build cargo install --locked cargo-deny --version 0.20.2 --root $(CACHE)/cargo-deny-0.20.2
	@rm -rf $(CACHE)/cargo-deny-build

$(CARGO_FUZZ):
	@echo "==> building cargo-fuzz 0.13.2 (a minute or two, once)"
	@CARGO_TARGET_DIR=$(CACHE)/cargo-fuzz-build cargo install --locked cargo-fuzz --version 0.13.2 --root $(CACHE)/cargo-fuzz-0.13.2
	@rm -rf $(CACHE)/cargo-fuzz-build
