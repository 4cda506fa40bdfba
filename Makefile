# Steering vectors, measured: contrastive data -> vectors -> strength -> transfer, composition, reliability -> report.
# `make help` lists the targets.
#
#   make all                              everything for the two embedded models, in a .venv of its own
#   make all MODEL="Qwen/Qwen2.5-0.5B-Instruct" PYTHON=python3      another model, in the environment one is in
#   make report FROZEN=1                  the report from the artifacts that are there, without a model, in seconds
#   make smoke                            the whole chain on a handful of items, under a minute
#
# Whatever changes a number is in the path of an output (model, suite, profile) or among its prerequisites.

# Folders or Hugging Face ids, one or several:
MODEL ?= data/models/pico-llama data/models/pico-gpt2
# A folder in data/suites, or a folder:
SUITE ?= testbed
# Empty: the suite's own judge.
JUDGE ?=
# full or smoke:
PROFILE ?= full
# The default makes .venv from requirements.txt once; PYTHON=python3 uses the environment one is in.
PYTHON ?= .venv/bin/python
# Processes that share a stage's work (torchrun):
NPROC ?= 1
# FROZEN=1: no stage runs, a missing artifact is an error.
FROZEN ?=

# The embedded models run on one thread, so their bits do not depend on the number of cores, and side by side.
ifeq ($(patsubst %/,%,$(MODEL)),data/models/pico-llama data/models/pico-gpt2)
export OMP_NUM_THREADS := 1
MAKEFLAGS += -j2
BESIDE := &
endif
BESIDE ?=

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules

# --- where things are --------------------------------------------------------------------------------------------
EMBEDDED  := data/models/pico-llama data/models/pico-gpt2
MODELS    := $(patsubst %/,%,$(MODEL))
name       = $(if $(wildcard $(1)/.),$(notdir $(1)),$(subst /,--,$(1)))
NAMES     := $(foreach m,$(MODELS),$(call name,$(m)))
ifneq ($(words $(NAMES)),$(words $(sort $(NAMES))))
$(error MODEL names the same output folder twice: $(NAMES))
endif
ifeq ($(filter $(PROFILE),full smoke),)
$(error PROFILE is full or smoke, not "$(PROFILE)")
endif
empty     :=
SET       := $(subst $(empty) $(empty),+,$(NAMES))
SUITE_AT  := $(patsubst %/,%,$(if $(wildcard $(SUITE)/suite.json),$(SUITE),data/suites/$(SUITE)))
LEAF      := $(notdir $(SUITE_AT))$(if $(filter smoke,$(PROFILE)),-smoke)$(if $(JUDGE),-by-$(subst :,--,$(subst /,--,$(JUDGE))))
ACROSS    := $(if $(filter-out 1,$(words $(NAMES))),outputs/$(SET)/$(LEAF)/05_across/manifest.json)
# What decides a model folder's numbers; its card and its training log do not.
weights    = $(wildcard $(1)/*.safetensors $(1)/*config.json $(1)/tokenizer* $(1)/*.jinja)
manifests  = $(foreach n,$(NAMES),outputs/$(n)/$(LEAF)/$(1)/manifest.json)
# The committed report is the embedded models' own; any other run gets a folder beside its results.
REPORT_TO := outputs/$(SET)/$(LEAF)/report
ifeq ($(LEAF):$(MODELS),testbed:$(EMBEDDED))
REPORT_TO := report
endif

ENV       := $(if $(filter .venv/bin/python,$(PYTHON)),.venv/requirements.stamp)
RUN        = $(PYTHON)$(if $(filter-out 1,$(NPROC)), -m torch.distributed.run --standalone --nproc-per-node=$(NPROC))
FLAGS      = --suite $(SUITE) --profile $(PROFILE)$(if $(JUDGE), --judge $(JUDGE))
model_flags = $(foreach m,$(MODELS),--model $(m))

# --- what each stage is made of: the lib and data modules it imports, and those that these import ------------------
LIB_01 := lib/artifacts.py lib/cases.py lib/directions.py lib/endpoint.py lib/engine.py lib/hooks.py lib/judges.py lib/mediation.py \
          lib/metrics.py lib/models.py lib/propensity.py lib/relations.py lib/suite.py lib/values.py \
          data/lexicon.py data/styles.py data/testbed.py
LIB_02 := lib/artifacts.py lib/cases.py lib/directions.py lib/endpoint.py lib/engine.py lib/hooks.py lib/judges.py lib/mediation.py \
          lib/metrics.py lib/models.py lib/propensity.py lib/relations.py lib/suite.py lib/tuning.py lib/values.py \
          data/lexicon.py data/styles.py data/testbed.py
LIB_03 := lib/artifacts.py lib/cases.py lib/directions.py lib/endpoint.py lib/engine.py lib/hooks.py lib/judges.py lib/mediation.py \
          lib/metrics.py lib/models.py lib/propensity.py lib/relations.py lib/suite.py lib/transfer.py lib/values.py \
          data/lexicon.py data/styles.py data/testbed.py
LIB_04 := lib/artifacts.py lib/cases.py lib/compose.py lib/endpoint.py lib/engine.py lib/hooks.py lib/judges.py \
          lib/metrics.py lib/models.py lib/subsets.py lib/suite.py lib/tuning.py data/lexicon.py \
          data/styles.py data/testbed.py
LIB_05 := lib/artifacts.py lib/engine.py lib/hooks.py lib/metrics.py lib/models.py lib/propensity.py lib/reliability.py \
          lib/suite.py
SUITE_FILES := $(wildcard $(SUITE_AT)/*.json $(SUITE_AT)/*/*.json $(SUITE_AT)/*/*.jsonl)

.PHONY: all data plan extract tune transfer compose reliability report smoke test verify compare testbed testbed-check \
        bench clean help
all: report                     ## every stage and the report, for MODEL, SUITE and PROFILE

# What is downloaded once; an empty list for the suites that are there.
PAPERS := $(if $(filter data/suites/papers,$(SUITE_AT)),data/suites/papers/suite.json)
data: $(ENV) $(PAPERS)          ## SUITE=papers: download and convert the public data; any suite: check it and count
	$(PYTHON) -m lib.suite $(SUITE)

plan: $(ENV) $(PAPERS)          ## tokens, memory and minutes that a run will take, from a short probe; runs nothing
	$(PYTHON) -m report.plan $(model_flags) --suite $(SUITE) --profile $(PROFILE)

data/suites/papers/suite.json: data/papers.py data/public.json | $(ENV)
	$(PYTHON) -m data.papers

extract:     $(call manifests,01_extract)                 ## 01  contrastive data -> one vector per concept and layer
tune:        $(call manifests,02_tune)                    ## 02  vectors -> layer and strength per concept
transfer:    $(call manifests,03_transfer)                ## 03  do they hold in another task, prompt or context?
compose:     $(call manifests,04_compose)                 ## 04  do several hold at once?
reliability: $(call manifests,03_transfer) $(call manifests,05_reliability) $(ACROSS)   ## 03, 05  per input, against controls, under other prompts, across models

# --- the chain, once per model -----------------------------------------------------------------------------------
define CHAIN
$(2)/01_extract/manifest.json: 01_extract.py $(LIB_01) $(SUITE_FILES) $(PAPERS) $(call weights,$(1)) | $(ENV)
	$$(RUN) $$< --model $(1) $$(FLAGS)

$(2)/02_tune/manifest.json: 02_tune.py $(LIB_02) $(2)/01_extract/manifest.json | $(ENV)
	$$(RUN) $$< --model $(1) $$(FLAGS)

$(2)/03_transfer/manifest.json: 03_transfer.py $(LIB_03) $(2)/02_tune/manifest.json | $(ENV)
	$$(RUN) $$< --model $(1) $$(FLAGS)

$(2)/04_compose/manifest.json: 04_compose.py $(LIB_04) $(2)/02_tune/manifest.json | $(ENV)
	$$(RUN) $$< --model $(1) $$(FLAGS)

$(2)/05_reliability/manifest.json: 05_reliability.py $(LIB_05) data/published.json $(2)/02_tune/manifest.json | $(ENV)
	$$(RUN) $$< --model $(1) $$(FLAGS)

endef

ifeq ($(FROZEN),)
$(foreach m,$(MODELS),$(eval $(call CHAIN,$(m),outputs/$(call name,$(m))/$(LEAF))))

outputs/$(SET)/$(LEAF)/05_across/manifest.json: 05_reliability.py $(LIB_05) $(call manifests,05_reliability) | $(ENV)
	$(PYTHON) $< --across $(model_flags) $(FLAGS)
endif

# Seconds, so it always runs: a checkout's file times must not decide whether the page is current.
REPORT_IN := $(foreach s,01_extract 02_tune 03_transfer 04_compose 05_reliability,$(call manifests,$(s))) $(ACROSS)
report: $(REPORT_IN) | $(ENV)   ## the page and its figures, every number read from a manifest
	$(PYTHON) report/build.py $(model_flags) $(FLAGS) --to $(REPORT_TO)$(if \
	  $(filter report,$(REPORT_TO)), --readme README.md)
	@echo "the report is at $(REPORT_TO)/report.md"

smoke:                          ## the whole chain on a handful of items, under a minute
	$(MAKE) --no-print-directory all PROFILE=smoke FROZEN=

test: $(ENV)                    ## the tests (CPU, no network, no embedded model needed)
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q tests

verify: $(ENV)                  ## re-hash the artifacts of MODEL and SUITE, and the data, weights and sources they came from
	$(PYTHON) -m lib.artifacts verify $(foreach n,$(NAMES),outputs/$(n)/$(LEAF)) $(if $(ACROSS),outputs/$(SET)/$(LEAF))

# The stages run again into a folder of their own, whatever is there, and are held to the committed results. A stage that
# fails is missing there, which the comparison says.
compare: $(ENV)                 ## run everything again, elsewhere, and compare with the results that are there
	again=$$(mktemp -d); trap 'rm -rf "$$again"' EXIT; \
	for model in $(MODELS); do (for stage in 01_extract 02_tune 03_transfer 04_compose 05_reliability; do \
	  $(RUN) $$stage.py --model $$model --out "$$again" $(FLAGS); done) $(or $(BESIDE),;) done; wait; \
	$(if $(ACROSS),$(PYTHON) 05_reliability.py --across $(model_flags) --out "$$again" $(FLAGS) ||:;) \
	$(PYTHON) -m lib.artifacts compare outputs "$$again"

testbed: $(ENV)                 ## write the testbed suite again and train both embedded models (an hour)
	$(PYTHON) -m data.testbed
	$(PYTHON) -m data.train_testbed pico-llama
	$(PYTHON) -m data.train_testbed pico-gpt2

testbed-check: $(ENV)           ## compare the committed suite with the grammar's, measure both models, write their cards
	dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; $(PYTHON) -m data.testbed "$$dir"; \
	diff -r "$$dir" data/suites/testbed; echo "the suite is what the grammar writes"
	$(PYTHON) -m data.check_testbed $(EMBEDDED)

# The peer's own requirements name transformers 4; it runs with 5. Nothing of it is installed into the environment.
bench: $(ENV)                   ## the engine against steering-vectors and the papers' way, timed (minutes)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .bench \
		steering-vectors==0.12.2 scikit-learn==1.9.1 scipy joblib cloudpickle threadpoolctl narwhals
	PYTHONPATH=. OMP_NUM_THREADS=2 $(PYTHON) tests/bench_engine.py

clean:                          ## delete the outputs of MODEL at SUITE and PROFILE, and unfinished units
	rm -rf $(foreach n,$(NAMES) $(if $(ACROSS),$(SET)),outputs/$(n)/$(LEAF))
	find outputs -depth -type d \( -name '*.units' -o -name '*.tmp-*' \) -exec rm -rf {} + 2>/dev/null || true

help:                           ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' Makefile
	@echo; echo "  MODEL= SUITE= JUDGE= PROFILE=full|smoke PYTHON= NPROC= FROZEN=1: see the head of the Makefile"

.venv/requirements.stamp: requirements.txt
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	cp requirements.txt $@
