PYTHON ?= python3
ARGS ?=
CYCLES ?= 200
MAVEN = mvn --quiet --batch-mode --no-transfer-progress
CLIENT ?= python tests/conformance/drivers/python_client.py
CORE_TESTS = tests/contract tests/server/rpc tests/server/store tests/server/streaming tests/client/connection \
	tests/client/publishing tests/client/reading

.DEFAULT_GOAL := help
# Empty, whatever the environment says: each of the hundreds of processes of a test run would compile every module.
export PYTHONDONTWRITEBYTECODE =
.PHONY: help demo serve cluster test conformance test-clients coverage check check-clients check-oldest docs proto protoset release sync chaos bench clean
.PHONY: test-typescript check-typescript test-go check-go test-java check-java test-rust check-rust

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.ready ## Run an agent, kill the server, cut the reader, compare what was read with the log
	.venv/bin/python client/examples/demo.py $(ARGS)

serve: .venv/.ready ## Run a server, e.g. make serve ARGS='--store sqlite:///lavant.db'
	.venv/bin/lavant serve $(ARGS)

cluster: .venv/.ready ## Run replicas on NATS servers behind Envoy, and the demo on them; ARGS=--once ends with it
	PYTHONPATH=tests .venv/bin/python client/examples/cluster.py $(ARGS)

test: .venv/.ready ## Run the tests, e.g. make test ARGS='-k resume'
	.venv/bin/python -m pytest --numprocesses auto --dist worksteal $(ARGS)

conformance: .venv/.ready ## Test a client, e.g. make conformance CLIENT='python tests/conformance/drivers/python_client.py'
	PATH="$(CURDIR)/.venv/bin:$$PATH" PYTHONPATH=tests .venv/bin/python -m conformance '$(CLIENT)' $(ARGS)

test-clients: test-typescript test-go test-java test-rust ## Build and test the clients in other languages than Python
	PYTHONPATH=tests .venv/bin/python -m conformance.relay

test-typescript: .venv/.ready client/typescript/node_modules/.ready
	cd client/typescript && npm run --silent build && npm run --silent test
	$(MAKE) --no-print-directory conformance CLIENT='node client/typescript/build/conformance.js'

test-go: .venv/.ready
	cd client/go && go test -race -timeout 4m ./... && go build -o ../../build/go/conformance ./conformance
	$(MAKE) --no-print-directory conformance CLIENT=build/go/conformance

test-java: .venv/.ready
	cd client/java && $(MAVEN) test
	$(MAKE) --no-print-directory conformance CLIENT=client/java/conformance

test-rust: .venv/.ready
	cd client/rust && cargo test --locked --quiet
	$(MAKE) --no-print-directory conformance CLIENT=build/rust/debug/examples/conformance

coverage: .venv/.ready ## Report the lines of the core that no test runs; fails below pyproject.toml's fail_under
	.venv/bin/python -m pytest --quiet --numprocesses auto --dist worksteal --cov --cov-report=term $(CORE_TESTS) $(ARGS)

check: .venv/.ready .venv-proto/.ready ## Lint, format, types, contract, generated code, import direction
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/basedpyright --project tests/typing
	protos/check
	.venv/bin/python client/unasync.py --check
	.venv/bin/python -m pytest -q tests/tree

check-clients: check-typescript check-go check-java check-rust ## Lint the clients in other languages than Python, and check their generated code

check-typescript: .venv-proto/.ready client/typescript/node_modules/.ready
	cd client/typescript && npm run --silent check && npm run --silent build && ./generate --check

check-go: .venv-proto/.ready
	cd client/go && go vet ./... && test -z "$$(gofmt -l .)" && ./generate --check

check-java:
	cd client/java && $(MAVEN) spotless:check test-compile

check-rust: .venv-proto/.ready
	cd client/rust && cargo fmt --check && cargo clippy --locked --quiet --all-targets -- -D warnings && ./generate --check

check-oldest: ## Import every module of the built wheel with the oldest dependencies it declares
	$(PYTHON) tests/tree/oldest.py

docs: .venv/.ready ## Build the documentation in build/docs; any warning fails
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet

proto: .venv-proto/.ready client/typescript/node_modules/.ready ## Generate the code of all clients from protos/
	protos/generate
	client/typescript/generate
	client/go/generate
	client/rust/generate

protoset: .venv-proto/.ready ## Write the contract as a descriptor set, build/lavant.protoset
	protos/describe build/lavant.protoset

release: .venv/.ready .venv-proto/.ready client/typescript/node_modules/.ready ## Set the version of all packages and build them in build/release: make release VERSION=1.2.3
	.venv/bin/python -m release.packages '$(VERSION)'

sync: .venv/.ready ## Write the blocking client from the asynchronous one
	.venv/bin/python client/unasync.py

chaos: .venv/.ready ## Kill servers at random, and a cluster's one by one, e.g. make chaos CYCLES=1000
	LAVANT_CHAOS_CYCLES=$(CYCLES) LAVANT_CHAOS_PRODUCERS=50 .venv/bin/python -m pytest tests/chaos tests/client/reading/test_under_cuts.py tests/client/evals/test_process_stream_killed.py --timeout 3600 $(ARGS)

bench: .venv/.ready ## Measure beside other systems and bare loops, e.g. make bench ARGS=--quick
	PYTHONPATH=tests .venv/bin/python -m benchmarks $(ARGS)

clean: ## Remove what make made
	rm -rf .venv .venv-proto .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	rm -rf client/typescript/node_modules client/typescript/build client/java/build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

define new_venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lavant needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
endef

.venv/.ready: pyproject.toml
	$(new_venv)
	.venv/bin/python -m pip install --quiet --editable '.[server,cli,evals,langchain,nats,openai-agents,otel,pydantic-ai,pydantic-deep]' --group dev --group docs
	@touch $@

# Apart from .venv: the generator needs an old protobuf, the code that it makes does not.
.venv-proto/.ready: pyproject.toml
	$(new_venv)
	.venv-proto/bin/python -m pip install --quiet --group proto
	@touch $@

client/typescript/node_modules/.ready: client/typescript/package-lock.json
	cd client/typescript && npm ci --silent --prefer-offline --cache build/npm
	@touch $@
