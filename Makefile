# The commands of the project. Each sets up what it needs in .venv and .venv-test.
# `make demo` and `make test` work from a fresh clone with Python 3.11+ and nothing else.

PYTHON ?= python3
VIDEO ?=
ENV := .venv
TEST_ENV := .venv-test
BIN := $(ENV)/bin
TEST_BIN := $(TEST_ENV)/bin
FRAMES ?= 120
PLUGINS := build/plugins
NATIVE := build/native
NATIVE_SOURCES := $(wildcard cpp_plugins/CMakeLists.txt cpp_plugins/cpu/*)
CUDA_ARCHITECTURES ?=
CAMVID ?=
CLIP ?=
SHARED ?=
MODELS ?=
OUT ?=
STEPS ?=
COMMIT ?=
FRESH ?=
MINUTES ?= 60
CHECKS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow check check-static format native plugins golden tables bench evidence train-more verify-tensorrt gpu-pack gpu clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

$(BIN)/.ready: pyproject.toml $(NATIVE_SOURCES)
	$(PYTHON) -m venv $(ENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(TEST_BIN)/.ready: pyproject.toml constraints.txt $(NATIVE_SOURCES)
	$(PYTHON) -m venv $(TEST_ENV)
	$(TEST_BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(TEST_BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(BIN)/.ready $(TEST_BIN)/.ready ## make both environments and install the commit hooks
	$(TEST_BIN)/pre-commit install

demo: $(BIN)/.ready ## segment a rendered street, or VIDEO=my.mp4 (or a URL), into demo/
	@mkdir -p demo
ifeq ($(VIDEO),)
	$(BIN)/fasterseg streets demo/street.mp4 --frames $(FRAMES) --labels demo/street.truth --overwrite
	$(BIN)/fasterseg-infer demo/street.mp4 demo/street --format overlay,classmap-png,stats --indexed --overwrite
else
	$(BIN)/fasterseg-infer '$(VIDEO)' demo/video --format overlay,classmap-png,stats --indexed --overwrite
endif
	@echo; echo "Look at demo/$(if $(VIDEO),video,street).overlay.mp4"

test: $(TEST_BIN)/.ready ## everything on the CPU but the slow suites, under 10 minutes
	$(TEST_BIN)/python -m pytest --require-markers torch,onnx,openvino $(PYTEST_ARGS)

test-slow: $(TEST_BIN)/.ready ## fuzz, faults, live streams, browser
	$(TEST_BIN)/python -m pytest -m slow --run-slow $(PYTEST_ARGS)

check-static: $(TEST_BIN)/.ready ## format, lint and types
	$(TEST_BIN)/ruff format --check .
	$(TEST_BIN)/ruff check .
	$(TEST_BIN)/mypy

check: check-static ## format, lint, types and the fast tests
	$(TEST_BIN)/python -m pytest -q tests/test_architecture.py tests/unit --ignore tests/unit/graph --ignore tests/unit/nn

format: $(TEST_BIN)/.ready ## format and mend what ruff can
	$(TEST_BIN)/ruff format .
	$(TEST_BIN)/ruff check --fix .

native: ## compile the CPU kernels into build/native, for a source tree that is not installed (needs cmake and a C++ compiler); pip does it by itself
	@command -v cmake >/dev/null || { echo "cmake was not found: install it (pip install cmake), then make native" >&2; exit 1; }
	cmake -S cpp_plugins -B $(NATIVE) -DFASTERSEG_CPU=ON -DFASTERSEG_CUDA=OFF
	cmake --build $(NATIVE) --parallel

plugins: ## compile the CUDA kernels into build/plugins (needs cmake and nvcc, no GPU); CUDA_ARCHITECTURES=90 for one GPU only; TensorRT_ROOT=FOLDER for the TensorRT plugins too
	@command -v cmake >/dev/null || { echo "cmake was not found: install it (pip install cmake), then make plugins" >&2; exit 1; }
	cmake -S cpp_plugins -B $(PLUGINS) $(if $(CUDA_ARCHITECTURES),'-DCMAKE_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES)',-UCMAKE_CUDA_ARCHITECTURES) -UTensorRT_INCLUDE_DIR $(if $(TensorRT_ROOT),-DFASTERSEG_TENSORRT=ON '-DTensorRT_ROOT=$(abspath $(TensorRT_ROOT))',-DFASTERSEG_TENSORRT=OFF)
	cmake --build $(PLUGINS) --parallel

bench: $(BIN)/.ready ## time the default model here and keep the record
	$(BIN)/fasterseg-bench --save

ifneq ($(CHECKS),)
evidence: $(TEST_BIN)/.ready
	$(TEST_BIN)/python benchmarks/evidence.py run $(filter-out all,$(CHECKS))
	$(TEST_BIN)/python benchmarks/evidence.py render
else
evidence: $(TEST_BIN)/.ready ## README's table of what ran where, from the records; CHECKS=all (or names) runs first
	$(TEST_BIN)/python benchmarks/evidence.py render
endif

tables: $(BIN)/.ready ## import the original's latency table: make tables SOURCE=FILE
	$(BIN)/python benchmarks/import_original_table.py $(SOURCE) benchmarks/tables/gtx1080ti-original/tensorrt5.1-fp32-1024x2048.json

ifeq ($(CAMVID),)
train-more: ## train the shipped model on, keep it if val gains: make train-more CAMVID=FOLDER MINUTES=60
	@echo 'make train-more needs the CamVid folder (train.txt, val.txt, test.txt): CAMVID=FOLDER' >&2; exit 2
else
train-more: $(TEST_BIN)/.ready
	$(TEST_BIN)/python benchmarks/train_more.py --root '$(CAMVID)' --minutes $(MINUTES)
endif

verify-tensorrt: $(BIN)/.ready ## with TensorRT and a GPU: build, compare, time, one JSON record to send; CAMVID=FOLDER adds mIoU
	-$(BIN)/python -c 'import tensorrt, cuda.bindings' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[tensorrt]'
	$(BIN)/python benchmarks/verify_tensorrt.py $(if $(CAMVID),--camvid '$(CAMVID)')

ifeq ($(CAMVID),)
gpu-pack: ## what make gpu needs beside the tree, into gpu-pack/ (ignored, <= 50 MB): make gpu-pack CAMVID=FOLDER CLIP=drive.mp4
	@echo 'make gpu-pack needs the CamVid folder (val.txt, test.txt, pictures, label maps): CAMVID=FOLDER; also CLIP=FILE for real frames, SHARED=FOLDER for fixtures, MODELS="name ..."' >&2; exit 2
else
gpu-pack: $(TEST_BIN)/.ready
	$(TEST_BIN)/python benchmarks/gpu_pack.py --camvid '$(CAMVID)' $(if $(CLIP),--clip '$(CLIP)') $(if $(SHARED),--shared '$(SHARED)') $(foreach model,$(MODELS),--model '$(model)')
endif

gpu: ## on a machine with a GPU (python3 with torch and pytest, nvcc; nothing installed): kernels, parity, every engine timed, in 9 minutes; the same again goes on; STEPS=parity,bench FRESH=1 OUT=FOLDER COMMIT=HASH
	@$(PYTHON) -c "import sys, torch; sys.exit(None if torch.cuda.is_available() else 'make gpu needs a GPU: torch finds none')"
	PYTHONPATH=. $(PYTHON) benchmarks/gpu.py run $(if $(OUT),'$(OUT)') $(if $(STEPS),--steps '$(STEPS)') $(if $(COMMIT),--commit '$(COMMIT)') $(if $(FRESH),--fresh)

clean: ## remove environments and outputs
	rm -rf $(ENV) $(TEST_ENV) demo .mypy_cache .ruff_cache .pytest_cache
