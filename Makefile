# make demo    everything set up, then `jtts-export kokoro --int8` on the small checkpoint that comes along and speaks
# make test    everything set up, then every test, with the real clients
# make demo-voice  train that checkpoint anew (half a day of one core), and measure it: docs/demo-voice.md
# make bench   regenerate docs/benchmarks.md and docs/defects.md (five hours, an otherwise idle machine)

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt

.PHONY: setup demo demo-voice test lint bench clean

setup: $(VENV)/installed-dev

# torch first and exactly: a looser request fetches gigabytes of CUDA packages.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install torch==2.13.0 numpy==2.3.5
	$(PIP) install -e '.[phonemes]'
	touch $@

# The authors' code, that references are tested against; what these two ask for beyond is 5 GB and another torch.
$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) install -e '.[phonemes,dev,coreml,cluster]'
	$(PIP) install --no-deps kokoro==0.9.4 chatterbox-tts==0.1.7
	touch $@

demo: $(VENV)/installed
	$(VENV)/bin/jtts-export kokoro --int8 --checkpoint demo --out release
	$(VENV)/bin/jtts-export say release/kokoro "Nothing leaves that was not measured." -o release/sample.wav
	@echo "The release: release/kokoro (README.md, validation.json, manifest.json); its voice: release/sample.wav"
	@echo "What PyTorch, fp32 and int8 said, side by side: release/kokoro/report/index.html"

VOICE := demo/out

demo-voice: $(VENV)/installed
	$(VENV)/bin/python -m demo.sentences
	$(VENV)/bin/python -m demo.data $(VOICE)/data.npz
	$(VENV)/bin/python -m demo.train $(VOICE)/data.npz $(VOICE)
	$(VENV)/bin/python -m demo.phone_classifier $(VOICE)/data.npz $(VOICE)/phones.pt
	$(VENV)/bin/python -m demo.export $(VOICE)
	$(VENV)/bin/jtts-export kokoro --int8 --checkpoint demo --out $(VOICE)/release
	$(VENV)/bin/python -m demo.evaluate $(VOICE)/data.npz $(VOICE)/phones.pt --release $(VOICE)/release/kokoro
	$(VENV)/bin/python -m demo.pictures $(VOICE)/data.npz $(VOICE)/release/kokoro docs/demo-voice

test: setup
	bash scripts/setup_clients.sh
	bash scripts/setup_browser.sh
	$(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: setup
	JTTS_FULL=1 $(VENV)/bin/python -m bench.run
	$(VENV)/bin/python -m bench.defects
	$(VENV)/bin/python -m bench.defects --checkpoint demo --untimed --once
	for busy in '' --busy; do \
	  $(VENV)/bin/python -m bench.defects --false-alarms 6 $$busy && \
	  $(VENV)/bin/python -m bench.defects --false-alarms 30 --small $$busy || exit; \
	done

clean:
	rm -rf $(VENV) .venv-clients .venv-optimum tests/clients/node/node_modules demo/out release .pytest_cache .mypy_cache .ruff_cache
