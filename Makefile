# The two commands of the README, and what developers use between them.
# make run   installs what is missing, builds, and serves the embedded model on port 7860
# make test  builds and passes every test
SHELL := /bin/bash
.DEFAULT_GOAL := help
PORT ?= 7860
MODEL ?= models/octavo-tiny
# A compiler needs up to 1.5 GB for the heaviest file.
JOBS ?= $(shell nproc)

.PHONY: help
help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: run
run: build ## install, build, serve the embedded model (PORT=7860 MODEL=models/octavo-tiny)
	exec build/release/octavo serve --port $(PORT) --model $(MODEL)

# On a machine with an NVIDIA GPU, or with OCTAVO_CUDA=ON, the CUDA backend too (tools/cuda_options).
.PHONY: build
build: ## install what is missing and build the release binary
	tools/install_dependencies
	options=$$(tools/cuda_options) && cmake --preset release -DOCTAVO_TESTS=OFF $$options
	cmake --build build/release -j $(JOBS) --target octavo

.PHONY: test
test: ## build and pass every test (unit, parity, API, sanitizers, fuzz, checks)
	tools/install_dependencies --with-tests
	tools/test

.PHONY: format
format: ## rewrite all sources with clang-format
	git ls-files '*.cc' '*.h' '*.cu' '*.cuh' | xargs clang-format -i

.PHONY: clean
clean: ## remove build output
	rm -rf build
