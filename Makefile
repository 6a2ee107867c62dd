# Set-up and checks. `make demo` and `make test` do everything on a fresh machine.
.DEFAULT_GOAL := help
SHELL := /bin/bash

APP := .venv
TRITON := .venv-triton
BENCH := .venv-bench
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)

.PHONY: help env demo up test test-clients check lint types imports compose kubernetes contract release-contract \
  faults-triton faults-stream bench-demo bench-triton bench-log bench-front bench-stream bench-workers \
  bench-freshness bench-memory bench-recovery bench-sizes bench-sql scaling fuzz-stream profile locks clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

.tools/bin/uv:
	@echo "» uv is not on the PATH: getting it by pip into .tools"
	python3 -m venv .tools
	.tools/bin/python -m pip install --quiet uv

$(APP)/.done: locks/app.txt pyproject.toml $(wildcard metering/*.pyx) | $(filter .tools/bin/uv,$(UV))
	@echo "» the application's environment ($(APP))"
	$(UV) venv --quiet --allow-existing --no-project --python '>=3.11' $(APP)
	$(UV) pip sync --quiet --python $(APP)/bin/python --require-hashes locks/app.txt
	$(UV) pip install --quiet --python $(APP)/bin/python --no-deps --editable .
	@touch $@

$(TRITON)/.done: locks/triton.txt | $(filter .tools/bin/uv,$(UV))
	@echo "» Triton's environment ($(TRITON))"
	$(UV) venv --quiet --allow-existing --no-project --python '>=3.11,<3.13' $(TRITON)
	$(UV) pip sync --quiet --python $(TRITON)/bin/python --require-hashes locks/triton.txt
	@touch $@

$(BENCH)/.done: locks/bench.txt | $(filter .tools/bin/uv,$(UV))
	@echo "» the environment of what the stream is compared with ($(BENCH))"
	$(UV) venv --quiet --allow-existing --no-project --python '>=3.11' $(BENCH)
	$(UV) pip sync --quiet --python $(BENCH)/bin/python --require-hashes locks/bench.txt
	@touch $@

env: $(APP)/.done $(TRITON)/.done ## both environments, from the lock files

demo: env ## calm traffic, an incident, and the report: what it cost, whose it was, why it changed
	$(APP)/bin/meter demo

up: env ## the whole stack on this machine, until Ctrl-C
	$(APP)/bin/meter up

test: env check ## every check and every test, with the real processes, three files of tests at a time, as they often wait
	$(APP)/bin/pytest -n 3 --dist loadfile --no-loadscope-reorder

test-clients: $(APP)/.done ## the ClickHouse endpoint by clickhouse-go and @clickhouse/client; needs Go and Node
	$(APP)/bin/python -m tests.clients.run

check: lint types imports compose kubernetes ## ruff, mypy --strict, import-linter, the schemas of Compose and Kubernetes

lint: $(APP)/.done ## ruff
	$(APP)/bin/ruff check .
	$(APP)/bin/ruff format --check .

types: $(APP)/.done ## mypy --strict
	$(APP)/bin/mypy

imports: $(APP)/.done ## who may import whom
	$(APP)/bin/lint-imports

compose: $(APP)/.done ## the compose files, against the Compose specification's schema
	$(APP)/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml deploy/compose.gpu.yml

kubernetes: $(APP)/.done ## what is deployed on Kubernetes, against its schemas; `make test` checks what Kustomize makes of it
	$(APP)/bin/kubernetes-validate --kubernetes-version 1.37 --strict --quiet \
	  $(filter-out %/kustomization.yaml,$(wildcard deploy/kubernetes/base/*.yaml deploy/kubernetes/overlays/triton/*.yaml))

contract: $(APP)/.done ## the topics' AsyncAPI document, docs/asyncapi.json
	$(APP)/bin/meter topics asyncapi > docs/asyncapi.json

release-contract: contract ## at a release: what later ones are held to, docs/schemas/released.json
	$(APP)/bin/meter topics schemas > docs/schemas/released.json

faults-triton: env ## 50 kills, outages of the broker, a log at its cap and on a full disk, under load (QUICK=1: 90 s)
	$(APP)/bin/python -m benchmarks.faults_triton

bench-demo: env ## how long the demo takes, and the share of Triton's GPU time it meters, in three runs (QUICK=1: one, 2 min)
	$(APP)/bin/python -m benchmarks.bench_demo

bench-triton: env ## what metering costs the server: throughput, batch time, latency, on against off (QUICK=1: a minute)
	$(APP)/bin/python -m benchmarks.bench_triton

bench-log: $(APP)/.done ## what the usage log costs: µs per append by fsync policy, the idle shipper, a drop (QUICK=1: 20 s)
	$(APP)/bin/python -m benchmarks.bench_usage_log

bench-front: env ## what a front costs: the time of one more hop, and requests a second (QUICK=1: 30 s)
	$(APP)/bin/python -m benchmarks.bench_front

bench-stream: $(APP)/.done $(BENCH)/.done ## requests per core: the worker beside a bare loop, plain Faust and Quix Streams (QUICK=1: 70 s)
	$(APP)/bin/python -m benchmarks.bench_stream

bench-workers: $(APP)/.done ## CPU for the same topic by one worker and by two; 12 min (QUICK=1: 2 min)
	$(APP)/bin/python -m benchmarks.bench_workers

bench-freshness: $(APP)/.done ## how old usage is in SQL and on the topics at 20,000 requests/s (QUICK=1: 45 s)
	$(APP)/bin/python -m benchmarks.bench_freshness

bench-memory: $(APP)/.done ## the worker's memory: flat for half an hour, bytes per cohort; 45 min (QUICK=1: a minute)
	$(APP)/bin/python -m benchmarks.bench_memory $(if $(MINUTES),--minutes $(MINUTES))

bench-recovery: $(APP)/.done ## how long a worker takes to find 10^6 sums of windows again (QUICK=1: a tenth of them)
	$(APP)/bin/python -m benchmarks.bench_recovery

bench-sizes: $(APP)/.done ## what a request takes up in Kafka and in ClickHouse, and what storing it costs (QUICK=1: 20 s)
	$(APP)/bin/python -m benchmarks.bench_sizes

bench-sql: $(APP)/.done ## the README's queries at 20 million lines, beside the plain way to the same answers; 6 GB of disk (QUICK=1: a minute)
	$(APP)/bin/python -m benchmarks.bench_sql

scaling: $(APP)/.done ## how many partitions, workers and shards for how many requests a second: the tables of docs/scaling.md
	@$(APP)/bin/python -m benchmarks.scaling

profile: $(APP)/.done ## where the worker's time goes, stage by stage, without Kafka and ClickHouse (QUICK=1: 10 s)
	$(APP)/bin/python -m benchmarks.profile_worker

fuzz-stream: $(APP)/.done ## 10^6 malformed and hostile messages into the stream: each refused by its reason, the good ones stored (QUICK=1: 20,000)
	$(APP)/bin/python -m benchmarks.fuzz_stream

faults-stream: $(APP)/.done ## 100 kills and rebalances of the stream, 5 × 10^6 requests, each checked (QUICK=1: a minute, LONG=1: 200 kills, 10^7)
	$(APP)/bin/python -m benchmarks.faults_stream

locks: | $(filter .tools/bin/uv,$(UV)) ## resolve all environments anew
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --extra embedded --group dev --output-file locks/app.txt pyproject.toml
	$(UV) pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_35 --generate-hashes \
	  --no-emit-index-url --excludes locks/triton.excludes --output-file locks/triton.txt locks/triton.in
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --output-file locks/bench.txt locks/bench.in
	$(UV) pip compile --quiet --python-version 3.12 --python-platform x86_64-manylinux_2_35 --generate-hashes \
	  --no-emit-index-url --excludes locks/triton.excludes --constraints locks/triton.txt \
	  --output-file deploy/triton.txt deploy/triton.in
	$(APP)/bin/python -m streams.stack.jars

clean: ## environments and everything made
	rm -rf $(APP) $(TRITON) $(BENCH) .tools build .meter
