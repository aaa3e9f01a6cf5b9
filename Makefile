# make serve   set everything up and start the service on this machine
# make test    set everything up and run format, lint, types and tests
# make check   format, lint and types only
# make test-clients   LiveKit's and pipecat's TTS classes against the real service, each in an environment of its own
# make chaos   kill, flood and abuse the service on this machine; figures go to tests/chaos/RESULTS.md. make chaos-soak: an hour
# make scale   real clusters on this machine: two nodes, growth, updates, logical GPUs, overhead

PYTHON ?= python3
CONFIG ?= configs/local.yaml
PORT ?=
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=

.PHONY: serve test check test-clients chaos chaos-soak scale setup setup-dev clean

serve: setup
	@exec $(BIN)/cosyserve serve $(CONFIG) $(if $(PORT),--port $(PORT))

test: check
	$(BIN)/pytest $(PYTEST_ARGS)

check: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test-clients: setup-dev
	$(BIN)/python -m tests.clients $(CLIENTS)

chaos: setup-dev
	for family in hostile damage access faults leaving floods; do $(BIN)/python -m tests.chaos $$family || exit 1; done

chaos-soak: setup-dev
	$(BIN)/python -m tests.chaos soak --minutes 60

scale: setup-dev
	$(BIN)/pytest tests/scale -m service
	for program in overhead small_end; do $(BIN)/python -m tests.scale.$$program || exit 1; done

setup: $(VENV)/.serve-installed
setup-dev: $(VENV)/.dev-installed

# A stamp that is newer than both files means that nothing has to be asked of the network.
$(VENV)/.serve-installed: pyproject.toml constraints.txt .ci/install
	PYTHON=$(PYTHON) .ci/install serve

$(VENV)/.dev-installed: pyproject.toml constraints.txt .ci/install
	PYTHON=$(PYTHON) .ci/install dev

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
