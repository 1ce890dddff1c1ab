# Each target builds what it needs first. `make` lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Where this is set, as in many containers, each process compiles all modules and tests again.
export PYTHONDONTWRITEBYTECODE :=

PYTHON := .venv/bin/python
SOURCES := $(shell find dashboard intent jobs training udfs -name '*.py') $(wildcard dashboard/static/* dashboard/templates/*)

# Each of these files marks its directory as complete. The directory's own time does not show that.
VENV := .venv/complete
WHEEL := dist/complete
JARS := build/jars/complete
VALIDATORS := build/validators/complete
PEERS := build/peers/complete
SEQUENCE := build/sequence/complete
REGISTRY := build/schema-registry/complete
PREREQUISITES := build/prerequisites
BUILT := $(VENV) $(WHEEL) $(JARS)

# Each process begins with neighbouring tests, which share fixtures, and then takes over some of another's.
UNIT_TESTS := $(PYTHON) -m pytest --numprocesses logical --dist worksteal tests/unit
# About half of the unit tests by their time.
UNIT_TESTS_OF_MODELS := tests/unit/training tests/unit/udfs/models

PIP_TOOLS := pip-tools==7.6.2
SCHEMA_REGISTRY := io.apicurio:apicurio-registry-app:3.0.9:tar.gz:all
FLINK_OPERATOR := org.apache.flink:flink-kubernetes-operator-api:1.10.0

.PHONY: help demo test cluster-tests unit-tests-of-models other-unit-tests java-tests test-unit test-sequence bench chaos overload soak fuzz dashboard up down submit status venv wheel jars release validate lint train features reference doctor pins hashes clean

help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: $(BUILT) ## Run the whole system on this machine and show the results; KEEP=1 leaves it running, DAY=1 plays a day
	@$(PYTHON) -m tools.demo $(if $(filter-out 0 no false,$(DAY)),--day) $(if $(filter-out 0 no false,$(KEEP)),--keep)

test: $(BUILT) $(REGISTRY) ## Run all tests: unit, Java operators, mini cluster, broker and cluster
	@$(MAKE) --jobs 4 cluster-tests unit-tests-of-models other-unit-tests java-tests

cluster-tests: $(BUILT) $(REGISTRY)
	@echo '==> Running tests on clusters; unit tests and Java tests run beside them at a lower priority'
	@$(PYTHON) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations=5 tests/e2e tests/flink

# Tests on clusters mostly wait. These use the cores meanwhile, each process with tests of its own: pytest-xdist, which
# divides them as they come, collects all of them in each process, and takes a tenth of the time.
unit-tests-of-models: $(BUILT)
	@$(call beside,$@,'Unit tests of models',$(UNIT_TESTS_OF_MODELS))

other-unit-tests: $(BUILT)
	@$(call beside,$@,'Other unit tests',tests/unit $(addprefix --ignore=,$(UNIT_TESTS_OF_MODELS)))

define beside
nice $(PYTHON) -m pytest $(3) > build/$(1).log 2>&1 || { cat build/$(1).log; exit 1; }; \
printf '\n==> %s: %s\n' $(2) "$$(tail -n 1 build/$(1).log | tr -d =)"
endef

java-tests:
	@MAVEN_OPTS='-XX:TieredStopAtLevel=1 -XX:+UseSerialGC' nice mvn --batch-mode test > build/maven-test.log 2>&1 || { cat build/maven-test.log; exit 1; }
	@printf '\n==> Java operators: %s\n' "$$(grep -E '^.{0,20}Tests run' build/maven-test.log | tail -n 1)"

test-unit: $(BUILT) ## Run the fast unit tests, one process per core
	@$(UNIT_TESTS) -m 'not slow' --hypothesis-profile quick

test-sequence: $(SEQUENCE) ## Run the tests that train sequence models, in a separate environment with PyTorch
	@build/sequence/bin/python -m pytest --numprocesses 0 tests/sequence

bench: $(BUILT) $(if $(if $(PART),$(findstring peers,$(PART)),all),$(PEERS)) ## Measure this machine, to build/bench.json: all parts, or PART=throughput,latency,peers
	@$(PYTHON) -m tools.bench $(if $(PART),--part '$(PART)')

chaos: $(BUILT) ## Cause faults on a real broker and cluster under load, and check every record: FAULTS=100 SEED=7 KINDS= BROKERS=3
	@$(PYTHON) -m tools.chaos --faults $(or $(FAULTS),100) --seed $(or $(SEED),7) $(if $(KINDS),--kinds $(KINDS)) $(if $(BROKERS),--brokers $(BROKERS))

overload: $(BUILT) ## Send the job 3 times as many clicks as it can score, and report how it recovers: MINUTES=5 HOT=0.2
	@$(PYTHON) -m tools.overload $(if $(MINUTES),--minutes $(MINUTES)) $(if $(HOT),--hot $(HOT))

soak: $(BUILT) ## Run the job for hours at half of its capacity, and report what grows: HOURS=2 RATE=2000
	@$(PYTHON) -m tools.soak $(if $(HOURS),--hours $(HOURS)) $(if $(RATE),--rate $(RATE))

fuzz: $(VENV) ## Call a reader with mutated inputs: TARGET=clicks INPUTS=100000 SEED=1; crashes go to build/fuzz/crashes
	@: $(if $(TARGET),,$(error make fuzz: TARGET is missing; give one of tools/fuzz/targets, for example TARGET=clicks))
	@$(PYTHON) -m tools.fuzz --target '$(TARGET)' $(if $(INPUTS),--inputs '$(INPUTS)') $(if $(SEED),--seed '$(SEED)')

dashboard: $(VENV) ## Start the live dashboard: CONF=conf/local.yaml, PORT=8080, KAFKA=host:port, REGISTRY=
	@$(PYTHON) -m dashboard --conf '$(or $(CONF),conf/local.yaml)' $(if $(PORT),--port '$(PORT)') \
		$(if $(KAFKA),--set 'kafka.bootstrap.servers=$(KAFKA)') $(if $(REGISTRY),--set 'model.registry=$(REGISTRY)')

up: $(BUILT) ## Start a Kafka broker and a Flink cluster on this machine
	@$(PYTHON) -m tools.stack up

down: $(VENV) ## Stop the broker and the cluster; topics and checkpoints stay in build/local
	@$(PYTHON) -m tools.stack down

submit: $(BUILT) ## Submit jobs to the local cluster: JOBS='score_clicks measure_sessions' CONF=conf/mine.yaml
	@$(PYTHON) -m tools.stack.submit $(JOBS) --conf '$(or $(CONF),conf/local.yaml)'

status: $(VENV) ## Show the running processes and their addresses
	@$(PYTHON) -m tools.stack status || true

venv: $(VENV) ## Create the virtual environment .venv with the packages of requirements.txt

wheel: $(WHEEL) ## Build the wheel that jobs are submitted with, in dist/

jars: $(JARS) ## Build the JARs of the job and of the local broker, in build/jars

release: $(BUILT) ## Pack wheel, JARs, settings, pinned versions and their bill of materials as one archive, in dist/release
	@$(PYTHON) -m tools.release

lint: $(VENV) ## Check style, formatting and import rules
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/lint-imports --cache-dir build/import-linter

validate: $(VENV) $(VALIDATORS) ## Check Dockerfile, compose.yaml and conf/kubernetes; deploys nothing
	@$(PYTHON) -m pytest tests/deployment

train: $(VENV) ## Train a model: DATA=clicks OUT=models/first, LABEL=, PROFILES=, MAPPING=, CONF=, RULE=, FEATURE_LOG=, LOGGED_BY=
	@: $(if $(DATA),,$(error make train: DATA is missing; give a file or directory of clicks, for example DATA=clicks.jsonl))
	@: $(if $(OUT),,$(error make train: OUT is missing; name the directory for the model, for example OUT=models/first))
	@$(PYTHON) -m training.train --clicks '$(DATA)' --out '$(OUT)' --conf '$(or $(CONF),conf/training.yaml)' \
		$(if $(LABEL),--label '$(LABEL)') $(if $(PROFILES),--profiles '$(PROFILES)') $(if $(MAPPING),--mapping '$(MAPPING)') \
		$(if $(RULE),--set 'rule=$(RULE)') $(if $(FEATURE_LOG),--feature-log '$(FEATURE_LOG)') $(if $(LOGGED_BY),--logged-by '$(LOGGED_BY)')

features: $(VENV) ## List the features that models use
	@$(PYTHON) -m intent.features

reference: $(VENV) ## Generate the reference in docs/configuration.md and the schemas in docs/contracts
	@$(PYTHON) -m tools.settings_reference
	@$(PYTHON) -m tools.json_schemas

doctor: ## List what this machine lacks, and how to get it
	@$$(command -v python3.11 || command -v python3) -m tools.doctor

pins: $(PREREQUISITES) ## Update requirements.txt to the newest versions that setup.py allows
	@echo '==> Resolving setup.py in an empty environment (about 3 minutes)'
	@rm -rf build/pins && python3.11 -m venv build/pins
	@build/pins/bin/pip install --quiet '.[dev]'
	@sed -n 1p requirements.txt > build/pins/requirements.txt
	@build/pins/bin/pip freeze --all | grep -vE '^(pip|purchase-intent)\b' >> build/pins/requirements.txt
	@mv build/pins/requirements.txt requirements.txt
	@$(MAKE) hashes

hashes: $(PREREQUISITES) ## Update the hashes in requirements.txt, after changing a version or adding a line NAME==VERSION
	@echo '==> Asking the package index for the hashes of all files of each version (about 5 minutes)'
	@rm -rf build/hashes && python3.11 -m venv build/hashes
	@build/hashes/bin/pip install --quiet $(PIP_TOOLS)
	@grep -oE '^[[:alnum:]][^ ]*==[^ ]+' requirements.txt > build/hashes/pins.in
	@build/hashes/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
		--output-file build/hashes/pins.txt build/hashes/pins.in
	@{ sed -n 1p requirements.txt; sed '/^$$/d; /^#/d' build/hashes/pins.txt; } > build/hashes/requirements.txt
	@mv build/hashes/requirements.txt requirements.txt

clean: ## Stop the local stack and delete .venv, build and dist
	@if [ -e build/local/stack.json ]; then $(PYTHON) -m tools.stack down; fi
	@rm -rf .venv build dist

$(PREREQUISITES):
	@python=$$(command -v python3.11 || command -v python3) \
		|| { echo 'missing  Python 3.11: apt-get install python3.11 python3.11-venv' >&2; exit 1; }; \
		$$python -m tools.doctor --prerequisites >&2
	@mkdir -p $(@D) && touch $@

$(VENV): requirements.txt setup.py | $(PREREQUISITES)
	@echo '==> Installing Python packages into .venv (about 2 minutes)'
	@python3.11 -m venv .venv
	@# Every package is pinned, so there is nothing to resolve; `pip check` finds pins that conflict. pip rejects a file
	@# whose hash is not in requirements.txt, and a pin without hashes.
	@total=$$(grep -c '==' requirements.txt); n=0; \
		$(PYTHON) -m pip install --progress-bar off --no-deps --require-hashes -r requirements.txt | while read -r step rest; do \
			case $$step in \
				Collecting) n=$$((n + 1)); if ((n % 10 == 0)); then echo "    $$n of $$total downloaded"; fi ;; \
				Building|Installing) echo "    $$step $${rest%%:*}" ;; \
			esac; \
		done
	@$(PYTHON) -m pip check > /dev/null || { $(PYTHON) -m pip check; exit 1; }
	@# The command `intent` of this checkout. It is not installed, so that nothing imports the checkout by accident.
	@printf '%s\n' '#!$(CURDIR)/.venv/bin/python' 'import sys' 'sys.path.insert(0, "$(CURDIR)")' \
		'from intent.cli import main' 'if __name__ == "__main__":' '    sys.exit(main())' > .venv/bin/intent && chmod +x .venv/bin/intent
	@touch $@

$(WHEEL): $(SOURCES) setup.py pyproject.toml | $(VENV)
	@echo '==> Building the wheel'
	@rm -rf build/wheel dist
	@$(PYTHON) -m build --wheel --no-isolation --outdir dist . > build/wheel.log 2>&1 || { cat build/wheel.log; exit 1; }
	@touch $@

$(JARS): pom.xml $(wildcard udfs/java/intent/*.java) | $(VENV)
	@echo '==> Fetching Kafka and the connector, compiling the batch operators (about a minute the first time)'
	@rm -rf build/jars
	@mvn --batch-mode -DskipTests package > build/maven.log 2>&1 || { cat build/maven.log; exit 1; }
	@touch $@

$(REGISTRY): | $(PREREQUISITES)
	@echo '==> Fetching the schema registry of the tests (109 MB)'
	@rm -rf $(@D) && mkdir -p $(@D)
	@mvn --batch-mode --quiet dependency:copy -Dartifact=$(SCHEMA_REGISTRY) -DoutputDirectory=$(@D) > build/registry.log 2>&1 \
		|| { cat build/registry.log; exit 1; }
	@tar -xzf $(@D)/*.tar.gz -C $(@D) && rm $(@D)/*.tar.gz
	@touch $@

$(PEERS): setup.py requirements.txt | $(WHEEL)
	@echo '==> Installing Quix Streams and Bytewax into build/peers, over the packages of .venv (about a minute)'
	@rm -rf $(@D) && python3.11 -m venv $(@D)
	@echo '$(CURDIR)/.venv/lib/python3.11/site-packages' > $(@D)/lib/python3.11/site-packages/venv.pth
	@# Versions are those of requirements.txt, except pydantic: Quix Streams does not accept the one that MLflow needs.
	@grep -oE '^[[:alnum:]][^ ]*==[^ ]+' requirements.txt | grep -v '^pydantic' > $(@D)/constraints.txt
	@$(@D)/bin/pip install --quiet --constraint $(@D)/constraints.txt "$$(echo dist/*.whl)[peers]"
	@$(@D)/bin/pip uninstall --quiet --yes purchase-intent
	@$(@D)/bin/pip check > /dev/null || { $(@D)/bin/pip check; exit 1; }
	@touch $@

$(SEQUENCE): setup.py requirements.txt | $(WHEEL)
	@echo '==> Installing PyTorch into build/sequence, over the packages of .venv (some minutes, several GB)'
	@rm -rf $(@D) && python3.11 -m venv $(@D)
	@echo '$(CURDIR)/.venv/lib/python3.11/site-packages' > $(@D)/lib/python3.11/site-packages/venv.pth
	@grep -oE '^[[:alnum:]][^ ]*==[^ ]+' requirements.txt > $(@D)/constraints.txt
	@$(@D)/bin/pip install --quiet --constraint $(@D)/constraints.txt "$$(echo dist/*.whl)[sequence]"
	@$(@D)/bin/pip uninstall --quiet --yes purchase-intent
	@$(@D)/bin/pip check > /dev/null || { $(@D)/bin/pip check; exit 1; }
	@touch $@

$(VALIDATORS): tests/deployment/requirements.txt | $(PREREQUISITES)
	@echo '==> Fetching hadolint, Docker Compose and the schemas of CycloneDX, Kubernetes and Flink'"'"'s operator'
	@rm -rf $(@D) && python3.11 -m venv $(@D)
	@$(@D)/bin/pip install --quiet --requirement tests/deployment/requirements.txt
	@mvn --batch-mode --quiet dependency:copy -Dartifact=$(FLINK_OPERATOR) -DoutputDirectory=$(@D)
	@touch $@
