# make demo and make test are all a newcomer needs: each sets up what is missing first.

LESIONFORGE := .venv/bin/lesionforge
DATA ?= ../shared/data/open_ms
DEMO := results/demo
OPEN_MS := results/open_ms
BASELINE ?= $(wildcard ../shared/data/nicmslesions)
EXPERIMENT := results/experiment-open-ms
SOURCES := $(wildcard main.nf nextflow.config nextflow_schema.json) python/requirements.txt \
           $(shell find modules python/src -type f -not -name '*.pyc' -not -path '*.egg-info/*' -not -path '*/__pycache__/*')

# In the order of the folders: the files with few long tests would come last, and run alone.
TWO_WORKERS := -n 2 --dist loadfile --no-loadscope-reorder
PACKAGE_OF_jax := jax==0.10.2
PACKAGE_OF_torch := torch==2.15.0
LOCK_IMAGE = .setup/uv/bin/uv pip compile --no-cache --python-platform x86_64-manylinux_2_28 --python-version 3.11 \
             --generate-hashes --no-emit-index-url --no-header --no-annotate -q -c python/requirements.txt

.PHONY: help setup demo open-ms experiment-open-ms bench-prepare bench-synthesize bench-sampler bench-training bench-cascade bench-scale images image-gpu sif sif-gpu test test-pipeline test-stub test-phantom test-slow test-torch test-jax test-cluster test-cluster-slow test-containers test-docker audit lint lock clean distclean

help:
	@echo "make demo             the whole chain on a small cohort of synthetic heads, about 10 minutes"
	@echo "make test             the tests of what each stage does, about 8 minutes"
	@echo "make test-pipeline    whole runs of the pipeline, about 13 minutes: test-stub, with tasks that only touch files, and test-phantom,"
	@echo "                      truly, on a phantom cohort"
	@echo "make test-slow        the tests that take more than a minute each"
	@echo "make test-torch       the tests of the stages with networks with KERAS_BACKEND=torch, which it installs into .setup/torch"
	@echo "                      (5 GB, with its CUDA), 11 minutes; make test-jax, the same with jax, 20 minutes"
	@echo "make open-ms DATA=D   the whole chain on the open_ms scans in folder D, about an hour"
	@echo "make experiment-open-ms DATA=D [BASELINE=M]   all arms on the open_ms scans in folder D, each annotated patient tested once, beside"
	@echo "                      the nicMSlesions weights in folder M (model_1.hdf5, model_2.hdf5) if there is one; hours, and goes on where it was stopped"
	@echo "make bench-prepare DATA=D   accuracy and cost of prepare and register on the open_ms scans in folder D, about half an hour"
	@echo "make bench-synthesize DATA=D [CASCADE=M]   how real synthetic lesions are on the open_ms scans in folder D, seen by the"
	@echo "                      cascade in model folder M if there is one, about an hour"
	@echo "make bench-sampler DATA=D   how varied and whole transplanted lesions are on the open_ms scans in folder D, about half an hour"
	@echo "make bench-training   speed and memory of the generator's training and painting on phantoms, about half an hour"
	@echo "make bench-cascade    speed and memory of the cascade's inference and training on phantoms, beside plain implementations, about 20 minutes"
	@echo "make test-cluster     the tests on a real SLURM that they bring up on this machine (as root on Debian or Ubuntu), and through faults"
	@echo "make test-cluster-slow   those of them that take more than a minute each"
	@echo "make bench-scale [SUBJECTS=\"200 1000\"]   memory and time of the head process for large cohorts, about a quarter of an hour"
	@echo "make test-containers  the chain in Docker, podman and Apptainer beside a plain run, and what images promise; 15 to 20 minutes"
	@echo "make test-docker      the same in Docker alone, about 6 minutes"
	@echo "make images           the images cpu and all-in-one, by Docker or podman, about 5 minutes; make image-gpu, the one for NVIDIA GPUs"
	@echo "make sif              the image cpu as containers/lesionforge-VERSION.sif, for Apptainer, by it and Docker or podman; make sif-gpu, the image gpu"
	@echo "make audit            known weaknesses of the locked Python packages"
	@echo "make lint             ruff, mypy, nextflow lint"
	@echo "make setup            the Python environment .venv and the Nextflow bin/nextflow"
	@echo "make lock             lock the newest versions of the Python packages"
	@echo "make clean            remove the results of demo, open-ms, the experiment and the benchmarks, work/ and caches"
	@echo "make distclean        remove .venv and .setup too"

setup:
	@bin/bootstrap

# The stamp goes with the results, so that removing them runs the demo again.
demo: $(DEMO)/.complete
	@echo "The report of the demo: $(CURDIR)/$(DEMO)/report/index.html"

$(DEMO)/.complete: $(DEMO)-cohort/cohort.csv $(SOURCES) | setup
	bin/nextflow run main.nf -profile test --input $(DEMO)-cohort/cohort.csv --outdir $(DEMO) -resume
	@touch $@

$(DEMO)-cohort/cohort.csv: $(wildcard python/src/lesionforge/phantom/*.py) | setup
	$(LESIONFORGE) phantom $(DEMO)-cohort --patients 4 --healthy 2 --seed 1
	@touch $@

open-ms: setup
	@.venv/bin/python bin/open-ms-cohort "$(DATA)" $(OPEN_MS)-cohort/cohort.csv
	bin/nextflow run main.nf -params-file benchmarks/open_ms.json --input $(OPEN_MS)-cohort/cohort.csv --outdir $(OPEN_MS) -resume
	@cat $(OPEN_MS)/evaluate/arms.tsv
	@echo "The report: $(CURDIR)/$(OPEN_MS)/report/index.html"

# The sheet says who is tested, but with folds every annotated patient is in its turn.
experiment-open-ms: $(if $(BASELINE),$(EXPERIMENT)-baseline/model.json) | setup
	@.venv/bin/python bin/open-ms-cohort "$(DATA)" $(EXPERIMENT)-cohort/cohort.csv
	bin/nextflow run main.nf -c benchmarks/two_at_once.config -params-file benchmarks/experiment_open_ms.json --input $(EXPERIMENT)-cohort/cohort.csv \
	  --lesion_library "$(DATA)/derivatives/lesion_masks" $(if $(BASELINE),--baseline $(EXPERIMENT)-baseline) --outdir $(EXPERIMENT) -resume
	.venv/bin/python benchmarks/experiment.py $(EXPERIMENT) --out docs
	@echo "The report: $(CURDIR)/$(EXPERIMENT)/report/index.html"

# Imported once: a model folder written anew would be adapted anew.
$(EXPERIMENT)-baseline/model.json: | setup
	$(LESIONFORGE) import-nicmslesions "$(BASELINE)/model_1.hdf5" "$(BASELINE)/model_2.hdf5" $(EXPERIMENT)-baseline

bench-synthesize: setup
	.venv/bin/python benchmarks/synthesize.py "$(DATA)" --out results/bench-synthesize $(if $(CASCADE),--cascade "$(CASCADE)")

bench-sampler: setup
	.venv/bin/python benchmarks/sampler.py "$(DATA)" --out results/bench-sampler

bench-training: setup
	.venv/bin/python benchmarks/training.py --out results/bench-training

bench-scale: setup
	.venv/bin/python benchmarks/cohort_scale.py --out results/bench-scale $(if $(SUBJECTS),--subjects $(SUBJECTS))

bench-cascade: setup
	.venv/bin/python benchmarks/cascade.py --out results/bench-cascade

bench-prepare: setup
	.venv/bin/python benchmarks/prepare.py "$(DATA)" --out results/bench-prepare

images:
	containers/build cpu all-in-one

image-gpu:
	containers/build gpu

sif:
	containers/build cpu sif

sif-gpu:
	containers/build gpu sif-gpu

test: setup
	.venv/bin/python -m pytest tests --ignore=tests/cluster --ignore=tests/pipeline -m "not slow" $(TWO_WORKERS) --durations=12

test-pipeline: test-stub test-phantom

test-stub: setup
	.venv/bin/python -m pytest tests/pipeline --ignore=tests/pipeline/test_phantom.py -m "not slow" $(TWO_WORKERS) --durations=12

test-phantom: setup
	.venv/bin/python -m pytest tests/pipeline/test_phantom.py

test-slow: setup
	.venv/bin/python -m pytest tests --ignore=tests/cluster -m slow

# Beside .venv, not in it: TensorFlow's tests shall not find them.
test-torch test-jax: test-%: setup
	.setup/uv/bin/uv pip install -q --no-cache --python .venv/bin/python --target .setup/$* -c python/requirements.txt $(PACKAGE_OF_$*)
	KERAS_BACKEND=$* PYTHONPATH="$(CURDIR)/.setup/$*" .venv/bin/python -m pytest tests/nets tests/segment tests/synthesize tests/train \
	  -m "not slow" $(TWO_WORKERS) --durations=12

test-cluster: setup
	.venv/bin/python -m pytest tests/cluster -m "not slow" -rs $(TWO_WORKERS)

test-cluster-slow: setup
	.venv/bin/python -m pytest tests/cluster -m slow -rs

test-containers: setup
	tests/containers/run

test-docker: setup
	LESIONFORGE_ENGINES=docker tests/containers/run

audit: setup
	bin/audit

lint: setup
	cd python && ../.venv/bin/ruff check . ../tests ../benchmarks ../bin/open-ms-cohort
	cd python && ../.venv/bin/ruff format --check . ../tests ../benchmarks ../bin/open-ms-cohort
	cd python && ../.venv/bin/mypy
	bin/nextflow -log .setup/lint.log lint main.nf modules nextflow.config

# docopt has no wheel; only the command line of num2words, which nothing here calls, imports it.
# The images take the same versions without the development tools; what the target gpu has more is a list of its own.
lock: setup
	echo docopt | .setup/uv/bin/uv pip compile --excludes /dev/stdin --no-cache --upgrade --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header -q --extra dev python/pyproject.toml -o python/requirements.txt
	echo docopt | $(LOCK_IMAGE) --excludes /dev/stdin python/pyproject.toml -o containers/requirements-cpu.txt
	echo docopt | $(LOCK_IMAGE) --excludes /dev/stdin --extra gpu python/pyproject.toml -o containers/requirements-gpu.txt \
	  $$(sed -n 's/^\([^ =]*\)==.*/--no-emit-package \1/p' containers/requirements-cpu.txt)
	for tool in uv:setup pip-audit:audit; do echo $${tool%:*} | .setup/uv/bin/uv pip compile --no-cache --upgrade --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -q - -o python/requirements-$${tool#*:}.txt || exit; done

clean:
	rm -rf $(DEMO) $(DEMO)-cohort $(OPEN_MS) $(OPEN_MS)-cohort $(EXPERIMENT) $(EXPERIMENT)-cohort $(EXPERIMENT)-baseline $(addprefix results/bench-,prepare synthesize sampler training cascade scale) work .nextflow .nextflow.log* .ruff_cache .pytest_cache
	rm -rf python/.ruff_cache python/.mypy_cache
	find bin modules python tests -name __pycache__ -type d -prune -exec rm -rf {} +
	-@rmdir results 2>/dev/null || true

distclean: clean
	rm -rf .venv .setup python/src/*.egg-info
