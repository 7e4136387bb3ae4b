# All targets need only Python 3.11 or newer. The environment is .venv; remove it to start over.
PYTHON ?= python3
BIN := .venv/bin
# No target accesses the Hub.
export HF_HUB_OFFLINE := 1

.PHONY: demo test wheel quality docs format hub clean

demo: .venv/installed
	$(BIN)/python scripts/demo.py --output demo

# The tensors of the tests are small: one process per core is faster than threads.
test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

# Builds the wheel, installs it without extras into a temporary environment, and uses it outside the clone.
wheel: .venv/installed
	$(BIN)/python scripts/check_wheel.py

quality: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mlinter --no-progress --no-cache src/transformers_massformer
	$(BIN)/ty check src scripts hub
	$(MAKE) docs

# Builds the documentation site in site/. Broken links, pages missing from the navigation and documented arguments that
# do not exist are errors, but not with --quiet. The variable silences an advertisement.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The folders to publish on the Hub, in build/hub/.
hub: .venv/installed
	rm -rf build/hub
	$(BIN)/python scripts/build_hub.py

.venv/installed: setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it with: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv build demo site .pytest_cache .ruff_cache .hypothesis src/*.egg-info
