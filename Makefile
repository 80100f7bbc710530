# odograph's whole interface for a newcomer and for a developer. Python 3.11 to 3.13 and make are all it needs;
# `make services` also needs Java 17, Maven and Go. Everything that is made here stays in .venv and .cache.

PYTHON ?= python3
BIN := .venv/bin
SOURCES := components tests bench examples schemas

.DEFAULT_GOAL := help
.PHONY: help demo test slow hour campaign campaign-ci stampede mutants fuzz check static audit services gpsd faketime bench clean

help:
	@echo 'make demo [FOR=seconds] [REPLAY=recording.json]   a car, a router and a cloud on this machine, live'
	@echo 'make test       the tests; those that need a service that is not here say how to get it'
	@echo 'make slow       the tests that take minutes: the whole real minute, on the road'
	@echo 'make fuzz [SECONDS=60]   every parser of what comes from outside, fed with what nobody would send'
	@echo 'make hour [SEED=n]   an hour of virtual driving with a random fault every 20 s'
	@echo 'make campaign [ROUNDS=100] [SEED=n]   real processes killed, cut and filled up; nothing may be lost (docs/campaign.md)'
	@echo 'make mutants    faults put into the code one by one: each must make a test fail'
	@echo 'make check      linters, types, import contracts, file lengths, then the tests'
	@echo 'make services   Apache Kafka, FerretDB (speaks MongoDB'"'"'s protocol), gpsd and libfaketime, for the tests'
	@echo 'make bench      what it costs, in ratios'
	@echo 'make audit      bandit over the code, pip-audit over what is installed (asks PyPI)'
	@echo 'make clean      forget .venv and .cache'
	@echo 'PYTHON=python3.12 chooses the Python that .venv is made from.'

.venv/.stamp: setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo 'odograph needs Python 3.11 to 3.13: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo 'this Python cannot make a virtual environment: apt-get install python3-venv' >&2; exit 1; }
	@echo 'Setting up .venv (once, about a minute)'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all,dev]'
	@touch $@

demo: .venv/.stamp
	$(BIN)/odograph demo $(if $(FOR),--for $(FOR)) $(if $(REPLAY),--replay $(REPLAY)) $(ARGS)

# Four workers, for two cores: the journeys mostly wait for real processes. A file stays with one worker, so its fleet is started
# once; files that share what takes long to start stay together (tests/conftest.py).
test: .venv/.stamp
	$(BIN)/python -m pytest -q -ra -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

slow: .venv/.stamp
	$(BIN)/python -m pytest -q -ra -m slow $(ARGS)

# Each target of tests/fuzz gets its part of the time. atheris is a native package, not to be had for every Python.
SECONDS ?= 60
FUZZED := envelope inflated packet receipt bundle gpsd
fuzz: .venv/.stamp
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]' || \
		echo 'atheris is not to be had for this Python and machine: Hypothesis makes the inputs instead'
	@for target in $(FUZZED); do \
		$(BIN)/python -m tests.fuzz $$target $$(( ($(SECONDS) + 5) / $(words $(FUZZED)) )) || exit 1; done

hour: .venv/.stamp
	$(BIN)/python -m pytest -q -m slow $(if $(SEED),--seed $(SEED)) tests/reactor/test_faulty_drive.py

campaign: .venv/.stamp
	@$(BIN)/python -m tests.campaign.run --rounds $(or $(ROUNDS),100) $(if $(SEED),--seed $(SEED)) $(ARGS)

campaign-ci: .venv/.stamp
	@$(BIN)/python -m tests.campaign.run --rounds 60 --seed 5

stampede: .venv/.stamp
	@$(BIN)/python -m tests.campaign.stampede

mutants: .venv/.stamp
	$(BIN)/python tests/mutate.py $(ARGS)

check: static test

static: .venv/.stamp
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports
	@find $(SOURCES) -name '*.py' -exec awk 'FNR == 501 { print FILENAME ": over 500 lines"; bad = 1 } END { exit bad }' {} +

bench: .venv/.stamp
	@for script in bench/[!_]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# In an environment of their own, as neither is needed to run or to test anything.
.cache/audit/.stamp:
	@$(PYTHON) -m venv .cache/audit
	@.cache/audit/bin/pip install --quiet --disable-pip-version-check bandit pip-audit
	@touch $@

audit: .venv/.stamp .cache/audit/.stamp
	.cache/audit/bin/bandit --quiet --recursive --configfile pyproject.toml components
	.cache/audit/bin/pip-audit --progress-spinner off --skip-editable --path $$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')

services: .cache/kafka/.stamp .cache/ferretdb gpsd faketime
	@echo 'Apache Kafka and FerretDB are here: make test'

.cache/kafka/.stamp: tests/services/kafka/pom.xml
	@command -v java >/dev/null && command -v mvn >/dev/null || { echo 'Apache Kafka needs Java 17 and Maven' >&2; exit 1; }
	@echo 'Fetching Apache Kafka (43 MB)'
	@rm -rf .cache/kafka
	@mvn -q -B -Dstyle.color=never -f $< dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/.cache/kafka
	@touch $@

# MongoDB's own server is in no package registry. FerretDB speaks its protocol, and is one Go module.
.cache/ferretdb: $(wildcard tests/services/ferretdb/*)
	@command -v go >/dev/null || { echo 'FerretDB is built with Go' >&2; exit 1; }
	@echo 'Building FerretDB (once, about a minute)'
	@mkdir -p .cache
	@cd tests/services/ferretdb && CGO_ENABLED=0 go build -buildvcs=false -o $(CURDIR)/.cache/ferretdb .
	@touch $@

gpsd faketime:
	@sh tests/services/debian.sh $@

clean:
	rm -rf .venv .cache *.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis
