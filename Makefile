# Verbs of the project. A machine with Python 3.11+ and make is enough; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
QUESTION ?= docs/question.wav
BENCHES := $(addprefix bench/,decode_growth.py first_audio.py vocoder_seams.py concurrency.py response.py certainty.py stage2_cache.py soak.py)

.PHONY: help demo test slow check nano bench clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    answer a bundled spoken question with nano, into reply.wav"
	@echo "make test    every test but the slow ones"
	@echo "make slow    the slow ones: wheel, installation, training steps"
	@echo "make check   ruff and mypy"
	@echo "make nano    train the bundled model from nothing (about three hours of two cores with bfloat16)"
	@echo "make bench   every bench, each ending in one JSON line"

demo: $(VENV)/installed
	$(BIN)/omnivox respond $(QUESTION) -o reply.wav

test: $(VENV)/developing
	$(BIN)/python -m pytest -m "not slow"

slow: $(VENV)/developing
	$(BIN)/python -m pytest -m slow

check: $(VENV)/developing
	$(BIN)/ruff check .
	$(BIN)/mypy

nano: $(VENV)/training
	OMNIVOX=$(BIN)/omnivox bash recipes/nano.sh

bench: $(VENV)/developing
	set -e; for script in $(BENCHES); do echo "== $$script"; $(BIN)/python $$script; done

# One environment, three depths: what a user needs, what the tests need, what training nano needs.
# pyworld, in the last, may need a C compiler.
$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/created
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/developing: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[nano]' || \
		echo "the extra [nano] could not be installed; tests that need it are left out" >&2
	touch $@

$(VENV)/training: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[nano]'
	touch $@

clean:
	rm -rf $(VENV) build dist reply.wav
