# Two commands: `make demo` and `make test`. Each makes its own environment and needs Python 3.11 or later.

PYTHON ?= python3
# Installed first, so that what follows finds it in place. On Linux without a GPU, point pip at an index of CPU builds
# (PIP_INDEX_URL, or PIP_FLAGS below): the CPU build `2.13.0+cpu` satisfies this requirement and is a tenth of the size.
TORCH ?= torch==2.13.0
PIP_FLAGS ?=

OUT ?= out
TARGET ?= openvino
PLAN ?= samples/plans/shapes-w7a8.json
MODEL ?= samples/shapes
PROMPT ?= a red circle left of a blue square
CALL := {"prompt": "$(PROMPT)", "guidance_scale": 4, "num_inference_steps": 20}
CALIB ?= samples/captions.txt
BUNDLE := $(OUT)/shapes-$(TARGET)

DEMO := .venv
TEST := .venv-test
DOCS := .venv-docs
INTEROP ?= .venv-interop
CASES ?=
# Processes that tests run in, one for each core, each file in one of them; PyTorch has one thread in each, so that they do not crowd.
WORKERS ?= auto
PYTEST := OMP_NUM_THREADS=1 $(TEST)/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint types docs interop clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

# The stamp of an environment is newer than pyproject.toml when everything that it names is installed.
$(DEMO)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install --quiet $(PIP_FLAGS) '$(TORCH)'
	$(DEMO)/bin/python -m pip install --quiet $(PIP_FLAGS) --editable '.[onnxruntime,openvino]'
	@touch $@

$(TEST)/.installed: pyproject.toml
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/python -m pip install --quiet $(PIP_FLAGS) '$(TORCH)'
	$(TEST)/bin/python -m pip install --quiet $(PIP_FLAGS) --editable '.[all,test]'
	@touch $@

# The site has a reference of the public functions, which imports them.
$(DOCS)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet $(PIP_FLAGS) '$(TORCH)'
	$(DOCS)/bin/python -m pip install --quiet $(PIP_FLAGS) --editable '.[docs]'
	@touch $@

# Other people's loaders, which want older libraries than qdx does: they meet only the files.
$(INTEROP)/.installed: Makefile
	$(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/python -m pip install --quiet $(PIP_FLAGS) '$(TORCH)'
	$(INTEROP)/bin/python -m pip install --quiet $(PIP_FLAGS) pytest 'diffusers==0.39.*' sentencepiece onnxruntime openvino-genai \
		'optimum==2.1.*' 'optimum-intel[nncf,openvino]==1.27.*' 'optimum-onnx==0.1.*' 'transformers==4.57.*'
	@touch $@

demo: $(DEMO)/.installed ## export the sample, generate an image with the artifact, verify it
	@mkdir -p $(OUT)
	$(DEMO)/bin/qdx export $(MODEL) --target $(TARGET) --plan $(PLAN) --call '$(CALL)' --calib $(CALIB) --output $(BUNDLE) --force
	$(DEMO)/bin/qdx run $(BUNDLE) --prompt '$(PROMPT)' --guidance 4 --seed 0 --output $(OUT)/shapes.png --force
	$(DEMO)/bin/qdx verify $(BUNDLE) --model $(MODEL) --report $(OUT)/report
	@echo
	@echo 'bundle:  $(BUNDLE)'
	@echo 'image:   $(OUT)/shapes.png'
	@echo 'report:  $(OUT)/report/report.html'

test: $(TEST)/.installed lint ## lint, types and the tests
	$(PYTEST)

test-all: $(TEST)/.installed lint ## as `make test`, with the slow tests
	$(PYTEST) -m 'slow or not slow'

lint: types ## ruff and mypy
	$(TEST)/bin/ruff check
	$(TEST)/bin/ruff format --check

types: $(TEST)/.installed ## mypy alone
	@$(TEST)/bin/python -m install.editable
	$(TEST)/bin/mypy

docs: $(DOCS)/.installed ## build the site from docs/ and the docstrings; a warning is an error
	@mkdir -p $(OUT)
	$(DOCS)/bin/sphinx-build --builder html --fail-on-warning --fresh-env --quiet \
		--doctree-dir $(OUT)/docs-read docs $(OUT)/docs
	@echo 'site: $(OUT)/docs/index.html'

# CASES chooses among those of tests/interop/prepare.py, such as `make interop CASES=sd`.
interop: $(INTEROP)/.installed $(DEMO)/.installed ## load exported bundles with optimum and openvino_genai
	rm -rf $(OUT)/interop
	mkdir -p $(OUT)
	HF_HUB_OFFLINE=1 $(DEMO)/bin/python -m tests.interop.prepare $(OUT)/interop $(CASES)
	HF_HUB_OFFLINE=1 QDX_INTEROP_FOLDER=$(OUT)/interop $(INTEROP)/bin/python -m pytest -c /dev/null --rootdir . \
		--import-mode=importlib -p no:cacheprovider -W ignore -o 'markers=interop: other loaders' \
		-o junit_family=xunit1 --junitxml=$(OUT)/interop/results.xml tests/interop

clean: ## remove environments, outputs and caches
	rm -rf $(DEMO) $(TEST) $(DOCS) $(INTEROP) $(OUT) dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
