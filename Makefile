# make demo    everything set up, then `jtts-export kokoro --int8` on a full-size seeded checkpoint
# make test    everything set up, then every test, with the real clients
# make bench   regenerate docs/benchmarks.md and docs/defects.md (five hours, an otherwise idle machine)

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt

.PHONY: setup demo test lint bench clean

setup: $(VENV)/installed-dev

# torch first and exactly: a looser request fetches gigabytes of CUDA packages.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install torch==2.13.0 numpy==2.3.5
	$(PIP) install -e '.[phonemes]'
	touch $@

# The authors' code, that references are tested against; what these two ask for beyond is 5 GB and another torch.
$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) install -e '.[phonemes,dev,coreml]'
	$(PIP) install --no-deps kokoro==0.9.4 chatterbox-tts==0.1.7
	touch $@

demo: $(VENV)/installed
	$(VENV)/bin/jtts-export kokoro --int8 --checkpoint random:0 --out demo
	$(VENV)/bin/jtts-export say demo/kokoro "Nothing leaves that was not measured." -o demo/sample.wav
	@echo "The release: demo/kokoro (README.md, validation.json, manifest.json); its voice: demo/sample.wav"
	@echo "A seeded checkpoint makes noise of speech's shape; with real weights: --checkpoint hub:hexgrad/Kokoro-82M"

test: setup
	bash scripts/setup_clients.sh
	bash scripts/setup_browser.sh
	$(VENV)/bin/python -m pytest

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: setup
	JTTS_FULL=1 $(VENV)/bin/python -m bench.run
	$(VENV)/bin/python -m bench.defects
	for busy in '' --busy; do \
	  $(VENV)/bin/python -m bench.defects --false-alarms 6 $$busy && \
	  $(VENV)/bin/python -m bench.defects --false-alarms 30 --small $$busy || exit; \
	done

clean:
	rm -rf $(VENV) .venv-clients .venv-optimum tests/clients/node/node_modules demo release .pytest_cache .mypy_cache .ruff_cache
