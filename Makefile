# `make book` and `make test` set up everything that they need; `make help` lists the rest.

BIN       := .venv/bin
INSTALLED := .venv/.installed
STAGE     := _build/source
HTML      := _build/html
BENCHMARKS := overhead throughput roofline bandwidth growth ensemble larger_than_memory
SPHINX    := --all -W -n --keep-going -q

# One thread: the numbers do not depend on the machine's core count, and nothing waits for a busy core.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
export PYTHONUTF8 := 1
# No start-up files of the user in the kernels, and no remark of each kernel about its transport.
export IPYTHONDIR := $(CURDIR)/_build/ipython
# Relative, as all targets are: make takes a space in a path for the end of a name.
KERNEL_CONFIG := _build/ipython/profile_default/ipython_kernel_config.py

.PHONY: help book executed notebooks test unit slow nbval bench bench-gpu serve lint clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(INSTALLED): pyproject.toml constraints.txt
	@python="$(PYTHON)"; for p in python3.11 python3.12 python3.13 python3; do \
	  test -n "$$python" && break; \
	  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && python=$$p; \
	done; \
	test -n "$$python" || { echo "No Python 3.11 to 3.13 found. Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }; \
	test -x $(BIN)/python || { \
	  "$$python" -c 'import ensurepip, venv' 2>/dev/null || { echo "$$python cannot make a virtual environment. On Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }; \
	  "$$python" -m venv .venv; }
	@echo "Installing the pinned dependencies into .venv (a few minutes the first time)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[lab,book,test,tensorboard,dask]"
	@touch $@

book: executed ## execute every notebook and build the book from what came out
	@$(call build,$(STAGE),.)
	@# The offline MathJax comes with every input and output format; the book uses TeX and HTML.
	@find $(HTML)/_static/mathjax -type f ! -name tex-chtml.js ! -path '*/chtml/fonts/*' ! -path '*/tex/extensions/*' -delete
	@find $(HTML)/_static/mathjax -type d -empty -delete
	@echo "The book is built. Open file://$(CURDIR)/$(HTML)/index.html"

# The book is built from a copy of its source, so that executing leaves the committed notebooks alone.
executed: $(INSTALLED) $(KERNEL_CONFIG)
	@rm -rf $(STAGE) && mkdir -p $(STAGE)/notebooks
	@for notebook in notebooks/*.ipynb; do \
	  $(BIN)/papermill --cwd notebooks "$$notebook" "$(STAGE)/$$notebook" </dev/null || exit 1; \
	done
	@$(BIN)/nbstripout --keep-output --keep-count --keep-id --extra-keys "metadata.papermill cell.metadata.papermill \
	  cell.metadata.execution metadata.language_info.version" $(STAGE)/notebooks/*.ipynb
	@cp -R _config.yml _toc.yml CHANGELOG.md book examples $(STAGE)

$(KERNEL_CONFIG):
	@mkdir -p $(@D) && echo 'c.IPKernelApp.log_level = "ERROR"' > $@

notebooks: executed ## re-execute the notebooks in place, all or none
	@cp $(STAGE)/notebooks/*.ipynb notebooks/
	@git --no-pager diff --stat -- notebooks

test: unit nbval ## unit tests, doctests, nbval, and the book with warnings as errors
	@$(call build,.,_build/test)

unit: $(INSTALLED)
	$(BIN)/python -m pytest --doctest-modules varreg companion tests

slow: $(INSTALLED) ## the tests that take more than a few seconds each
	$(BIN)/python -m pytest -m slow tests

nbval: $(INSTALLED) $(KERNEL_CONFIG)
	$(BIN)/python -m pytest --nbval --nbval-current-env notebooks

# On all cores, each of which may spin while it waits for the other.
MEASURE := env -u OMP_NUM_THREADS -u OMP_WAIT_POLICY $(BIN)/python

bench: $(INSTALLED) ## measure speed and memory beside peers; appends to results/benchmarks
	@for question in $(BENCHMARKS); do $(MEASURE) benchmarks/$$question.py $(ARGS) || exit 1; done

bench-gpu: $(INSTALLED) ## the tests that need a GPU, and the benchmarks on it
	@$(BIN)/python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else \
	  "make bench-gpu needs a CUDA device, and PyTorch finds none here; make bench measures the CPU")'
	$(BIN)/python -m pytest -m cuda tests
	@for question in $(BENCHMARKS); do $(MEASURE) benchmarks/$$question.py --device cuda $(ARGS) || exit 1; done

serve: ## serve the built book on http://localhost:8000, to this machine only
	@test -f $(HTML)/index.html || $(MAKE) book
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(HTML) 8000

lint: $(INSTALLED) ## ruff: check and format; mypy: the types of the package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## remove what was built (the environment stays: rm -r .venv)
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find varreg companion tests -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call build,SOURCE,OUT): the book of SOURCE, into OUT/_build/html
build = $(BIN)/jupyter-book build $(1) --path-output $(2) $(SPHINX)
