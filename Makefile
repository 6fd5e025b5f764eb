# The commands of this project; `make` lists them. Each brings its own dependencies (.ci/setup) and builds what changed.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell nproc)

BUILD := build/wheel
NVCC := $(or $(shell command -v nvcc),$(wildcard /usr/local/cuda/bin/nvcc))
CXX_FILES = $$(git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')

# Another order of sums tips what lies at a tie: test-numerics runs all but the integration tests. What torch compiles is
# cached by torch, but not by these settings: each has a cache of its own.
NUMERIC_SETTINGS := OMP_NUM_THREADS=1 OMP_NUM_THREADS=2 ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 \
  HEMOSTAT_ISA=baseline HEMOSTAT_ISA=avx2 HEMOSTAT_ISA=avx512 MKL_CBWR=COMPATIBLE MKL_CBWR=AVX2

# install(<HEMOSTAT_CUDA>, <tests and benchmarks: ON or OFF>): builds what changed and installs it into .venv.
# One build directory serves every goal; the lock keeps two of them from building in it at once.
define install
	mkdir -p $(BUILD)
	flock $(BUILD).lock pip install --verbose --no-build-isolation --no-deps \
	  --config-settings build-dir=$(BUILD) \
	  --config-settings cmake.define.HEMOSTAT_CUDA=$(1) \
	  --config-settings cmake.define.HEMOSTAT_BUILD_TESTS=$(2) \
	  --config-settings cmake.define.HEMOSTAT_BUILD_BENCHMARKS=$(2) \
	  .
endef

.PHONY: help demo test test-cuda test-numerics bench build compared docs figures sanitize fuzz kill format check-format clean

help: ## list these commands
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

demo: ## build, and watch a small real model bleed (WINDOWS=… sets how much text)
	.ci/setup demo
	$(call install,AUTO,OFF)
	python examples/demo.py

build: ## build with the tests and install into .venv
	.ci/setup test
	$(call install,$(if $(NVCC),ON,OFF),ON)

test: build ## everything: C++ and Python tests, formatting
	ctest --test-dir $(BUILD) --output-on-failure --no-tests=error
	python -m pytest tests
	$(MAKE) --no-print-directory check-format

test-cuda: build ## the same tests, those that take a device on the GPU
	HEMOSTAT_TEST_DEVICE=cuda ctest --test-dir $(BUILD) --output-on-failure --no-tests=error
	HEMOSTAT_TEST_DEVICE=cuda python -m pytest tests

test-numerics: build ## what computes, under other numbers of threads, instruction sets and orders of sums
	grep -m1 'model name' /proc/cpuinfo
	failed=; for setting in $(NUMERIC_SETTINGS); do \
	  echo "== $$setting"; \
	  env $$setting ctest --test-dir $(BUILD) --output-on-failure --no-tests=error && \
	    env $$setting TORCHINDUCTOR_CACHE_DIR=$$(mktemp -d) python -m pytest -q -m "not integration" tests || \
	    failed+=" $$setting"; \
	done; \
	[ -z "$$failed" ] || { echo "Failed under$$failed" >&2; exit 1; }

bench: build ## measured time, limit and ratio of every hot path
	for script in benchmarks/{kernels,gguf_formats,calibration,solve,lowrank,model,localize,generate}.py; do echo "== $$script"; python $$script; done
	$(BUILD)/cpp/benchmarks/benchmark_kernels

sanitize: ## the C++ tests under the address and undefined behaviour sanitizers
	.ci/setup test
	cmake --preset sanitize -D Python3_EXECUTABLE=$(CURDIR)/.venv/bin/python
	cmake --build --preset sanitize
	ctest --preset sanitize

fuzz: build ## fuzz what reads checkpoints, each reader for FUZZ_SECONDS=60
	.ci/setup fuzz
	.ci/fuzz $(or $(FUZZ_SECONDS),60)

kill: build ## kill saves and scans at random moments, each kind TIMES=50 times, and fill their disk
	python tests/python/kill_saves.py --times $(or $(TIMES),50)
	python tests/python/kill_and_resume.py --times $(or $(TIMES),50)

compared: build ## the tables of docs/compared.md, into build/compared: hours; run again, it goes on where it stopped
	python benchmarks/compared.py $(or $(EVALUATION),wikitext2-test.txt) $(or $(CALIBRATION),wikitext2-valid.txt) \
	  $(if $(SPARSEGPT),--sparsegpt $(SPARSEGPT)) $(if $(GPTQ),--gptq $(GPTQ)) \
	  $(if $(LLM_COMPRESSOR),--llm-compressor $(LLM_COMPRESSOR)) $(if $(TABLES),--tables $(TABLES))

figures: build ## the documentation's curves and pictures: measure what docs/curves/*.json lack (hours for all), draw
	python docs/smollm2_curves.py measure $(or $(WINDOWS),8)
	python docs/smollm2_curves.py surface $(or $(WINDOWS),8)

docs: build ## the documentation, build/docs/index.html
	sphinx-build --fail-on-warning --keep-going --quiet docs build/docs

format: ## format the sources
	clang-format -i $(CXX_FILES)
	ruff check --fix
	ruff format

check-format:
	clang-format --dry-run -Werror $(CXX_FILES)
	ruff check
	ruff format --check

clean: ## remove what was built, but not .venv
	rm -rf build
