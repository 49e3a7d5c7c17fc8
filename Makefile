# `make run` and `make test` need Python 3.11 and nothing else: they make .venv and install the lock file into it.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
STUDY ?= sandbox
QUIET := --quiet rules reason host
export PYTHONPATH := src

.PHONY: help run pack unpack test lint format docs generated lock

help:
	@echo "make run        the embedded study: six tiny models, nothing to download"
	@echo "make pack       pack results/STUDY (STUDY=sandbox) into espalier-STUDY.tar.gz; make unpack: the reverse"
	@echo "make test       all tests"
	@echo "make lint       ruff, snakefmt, snakemake --lint, mypy, codespell"
	@echo "make format     rewrite Python and rule files in the house style"
	@echo "make docs       the documentation as a site, in build/site"
	@echo "make generated  write config/schema.json, the options in config/README.md, docs/results.md"
	@echo "make lock       choose versions anew: requirements.in -> requirements.lock"
	@echo "$(BIN)/snakemake --list    the targets of the workflow, in a line each"

# In two steps: where plans are made anew with equal content, the second finds them unchanged and evaluates nothing.
# Where something fails, the rest is done, reported as far as it goes, and the first failure is the exit status.
run: $(INSTALLED)
	@status=0; \
	$(BIN)/snakemake plans $(QUIET) || status=$$?; \
	$(BIN)/snakemake $(QUIET) || status=$$?; \
	if [ $$status != 0 ]; then $(BIN)/snakemake partial_reports $(QUIET); exit $$status; fi
	@$(BIN)/python -m espalier.summary results/sandbox

# Results with their times and Snakemake's records, so that nothing reruns where they are unpacked.
pack:
	tar --create --gzip --file=espalier-$(STUDY).tar.gz results/$(STUDY) .snakemake/metadata

unpack:
	tar --extract --gzip --file=espalier-$(STUDY).tar.gz

test: $(INSTALLED)
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint
	$(BIN)/mypy
	$(BIN)/codespell

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/snakefmt Snakefile rules

docs: $(INSTALLED)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "build/site/index.html (\`$(BIN)/python -m http.server --directory build/site\` serves it, for its search)"

generated: $(INSTALLED)
	$(BIN)/python -m espalier.config.document
	$(BIN)/python -m espalier.dictionary

# The local version label of a CPU build is dropped: users get the CUDA build of the same version.
lock: $(INSTALLED)
	$(BIN)/pip install pip-tools
	$(BIN)/pip-compile --quiet --upgrade --strip-extras --annotation-style=line --no-emit-find-links \
		--no-emit-index-url --no-emit-trusted-host --output-file=requirements.lock requirements.in
	sed -i 's/^\(torch==[0-9.]*\)+cpu/\1/' requirements.lock

$(INSTALLED): requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.lock
	@touch $@
