# `make run` and `make test` need only Python 3.11: they create .venv and install the locked versions into it.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
LLAMA := .venv/.installed-llama
STUDY ?= sandbox
QUIET := --quiet rules reason host
export PYTHONPATH := src

.PHONY: help install run pack unpack test test-all llama lint format generated lock coverage mutation audit torture

help:
	@echo "make install    create .venv and install the locked versions"
	@echo "make run        the embedded study: six tiny models, nothing to download"
	@echo "make pack       pack results/STUDY (STUDY=sandbox) into espalier-STUDY.tar.gz; make unpack: the reverse"
	@echo "make test       the tests that take seconds each"
	@echo "make test-all   all tests: also the default study, whole sweeps, Slurm, a browser, llama.cpp"
	@echo "make llama      install llama.cpp, which checks GGUF files; it is built once and kept in ~/.cache/espalier"
	@echo "make lint       ruff, snakefmt, snakemake --lint, imports, mypy, codespell"
	@echo "make format     rewrite Python and rule files in the house style"
	@echo "make generated  write config/schema.json, the options in config/README.md, docs/results.md"
	@echo "make coverage   the unit tests, and the lines that they leave out"
	@echo "make mutation   inject faults into the core, and list those that no unit test finds"
	@echo "make torture    kills, damaged files, bad input, full disks: docs/reliability.md has the figures"
	@echo "make audit      known vulnerabilities of the locked versions (asks pypi.org)"
	@echo "make lock       resolve the newest versions: requirements.in -> requirements.lock, with hashes"
	@echo "$(BIN)/snakemake --list    the targets of the workflow, in a line each"

install: $(INSTALLED)

# If there are plans already, they come first, in a run of their own: if they are made again with equal content, the main
# run finds them unchanged and evaluates nothing. If a job fails, the other jobs still run, the finished results are
# reported, and the exit status is not 0. Only the summary names the reports.
run: export ESPALIER_SUMMARY_FOLLOWS := 1
run: $(INSTALLED)
	@status=0; \
	if [ -d results/sandbox/experiments ]; then $(BIN)/snakemake plans $(QUIET) || status=$$?; fi; \
	$(BIN)/snakemake $(QUIET) || status=$$?; \
	if [ $$status != 0 ]; then \
		$(BIN)/snakemake partial_reports $(QUIET) && $(BIN)/python -m espalier.reports.summary results/sandbox; exit $$status; \
	fi
	@$(BIN)/python -m espalier.reports.summary results/sandbox

# The archive has the modification times of results and Snakemake's metadata, so that nothing reruns after unpacking.
pack:
	tar --create --gzip --file=espalier-$(STUDY).tar.gz results/$(STUDY) .snakemake/metadata

unpack:
	tar --extract --gzip --file=espalier-$(STUDY).tar.gz

# Processes of one thread each: for models this small, synchronising threads takes longer than computing.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --dist=loadfile --no-loadscope-reorder

test: $(INSTALLED)
	$(TEST) --numprocesses=2 -m "not long"

# CI runs this. Without a C++ compiler, the tests that need llama.cpp are skipped; the next run tries to build it again.
test-all: $(INSTALLED)
	@$(MAKE) --no-print-directory llama || echo "llama.cpp could not be built: its tests are skipped"
	$(TEST) --numprocesses=2

llama: $(LLAMA)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/codespell

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/snakefmt Snakefile rules

generated: $(INSTALLED)
	$(BIN)/python -m tools.config_options
	$(BIN)/python -m tools.data_dictionary
	$(BIN)/python -m tools.families

coverage: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit --cov --cov-report=term

# `.venv/bin/mutmut show NAME` prints a mutant. Its working files are in mutants/.
mutation: $(INSTALLED)
	$(BIN)/pip install --quiet mutmut==3.8.1
	OMP_NUM_THREADS=1 $(BIN)/mutmut run
	$(BIN)/mutmut results

# Runs for an hour. PARTS names some parts only, such as `make torture PARTS="hostile --short"`. A full disk needs root.
torture: $(INSTALLED)
	PYTHONPATH=src:. OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.torture $(PARTS)

# The tool has its own environment, because we do not depend on its dependencies.
audit: $(INSTALLED)
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/pip install --quiet pip-audit==2.10.1
	.venv/audit/bin/pip-audit --requirement requirements.lock --requirement requirements-torch.txt --no-deps --disable-pip --strict --progress-spinner off

# uv writes the hashes of all files of a version, so that the lock serves every platform. pip-compile takes minutes for it.
lock:
	$(PYTHON) -m venv .venv/lock
	.venv/lock/bin/pip install --quiet uv==0.13.9
	.venv/lock/bin/uv pip compile --quiet --upgrade --generate-hashes --python-version 3.11 --annotation-style line \
		--custom-compile-command "make lock" --excludes requirements-torch.txt --output-file requirements.lock \
		requirements.in

# --no-deps: the lock file is complete, and pip would refuse PyTorch, a dependency of others without a hash here.
$(INSTALLED): requirements.lock requirements-torch.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/pip install --quiet --requirement requirements-torch.txt
	@touch $@

$(LLAMA): requirements-llama.txt envs/install_llama_cpp.sh $(INSTALLED)
	sh envs/install_llama_cpp.sh $(BIN)/python
	@touch $@
