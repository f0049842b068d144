# make demo: install, make data, train, evaluate, draw, report.   make test: install, run the tests but for the slow ones.
# make test-gpu: the tests that need a GPU; without one, they are skipped.
# make test-minimum: some of the tests with the lowest versions that setup.py allows, in an environment of their own.
# make test-wheel: some of the tests in another folder, with the package that a wheel installs there.
VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready
DATA   := data/synthetic
WORK   := work_dirs/demo
CONFIG := configs/bevformer/bevformer_nano.py
LONGER := projects/synthetic_world/bevformer_nano.pth
MINIMUM := build/minimum
WHEEL  := build/wheel
VAL    := $(DATA)/nuscenes_infos_temporal_val.pkl

# Tests that compare numbers, and the settings under which make test-processors runs them: the instructions that this
# processor has, those of one with AVX2, those of one without, each on one thread and on two. The first of the six,
# this processor on one thread, is make test.
COMPARING := tests/reference tests/layers tests/geometry tests/models tests/ops/test_multi_scale_deformable_attention.py \
	tests/ops/test_backends.py tests/ops/test_deform_conv_backends.py tests/ops/test_modulated_deform_conv.py
ONE_THREAD := tests/training/test_sharding.py  # its processes take one thread each
own   :=
avx2  := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
plain := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2
SETTINGS := avx2-1 plain-1 own-2 avx2-2 plain-2
PARALLEL := -n auto --maxprocesses 8 --dist loadfile  # the files of tests side by side

# The first interpreter between 3.10 and 3.13 that starts; override with make PYTHON=/path/to/python3.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 && echo $$p && break; done)

.PHONY: setup demo clean-demo test test-slow test-gpu test-minimum test-wheel test-processors $(SETTINGS:%=test-processor-%) lint

setup: $(READY)

$(READY): requirements.txt requirements-no-deps.txt setup.py bevformer_plugin/ops/mmcv_finder.py
	@test -n "$(PYTHON)" || { echo "No Python 3.10-3.13 found. Install one, or run: make PYTHON=/path/to/python3 $(MAKECMDGOALS)"; exit 1; }
	@echo "== Creating $(VENV) with $$($(PYTHON) --version) (about 2 minutes, 2 GB with a CPU build of torch)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { echo "The venv module is missing: install python3-venv."; exit 1; }
	@echo "== Installing the pinned requirements"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-no-deps.txt
	@echo "== Installing bevformer_plugin in development mode"
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(PY) -c "import mmdet3d.structures, bevformer_plugin as b; print('== Ready: bevformer_plugin', b.__version__, 'with mmcv operators:', b.ops.MMCV_EXT)"
	@touch $@

demo: setup
	@test ! -e $(WORK) || { echo "$(WORK) has the pictures and scores of an earlier demo: look there, or run make clean-demo first"; exit 1; }
	@echo "== 1/7 A synthetic world in nuScenes format"
	@test -d $(DATA) || $(PY) tools/create_synthetic.py $(DATA) --version v1.0-trainval --scenes-train 36 --scenes-val 4 --frames 20 --seed 0 --image-size 320 180
	@echo "== 2/7 Info files"
	@test -f $(VAL) || $(PY) tools/create_data.py nuscenes --root $(DATA) --version v1.0-trainval
	@echo "== 3/7 Training from scratch"
	$(PY) tools/train.py $(CONFIG) --work-dir $(WORK)
	@echo "== 4/7 Testing on scenes it never saw"
	$(PY) tools/test.py $(CONFIG) $(WORK)/last.ckpt --out $(WORK)/results_nusc.json
	@echo "== 5/7 The same model trained longer"
	$(PY) tools/test.py $(CONFIG) $(LONGER) --out $(WORK)/trained_longer/results_nusc.json
	@echo "== 6/7 Pictures"
	$(PY) tools/visualize.py --root $(DATA) --infos $(VAL) --results $(WORK)/results_nusc.json --best 2 --worst 1 --out $(WORK)/pictures
	$(PY) tools/visualize.py --root $(DATA) --infos $(VAL) --results $(WORK)/trained_longer/results_nusc.json --best 2 --worst 1 --out $(WORK)/trained_longer/pictures
	@echo "== 7/7 A report of both models"
	$(PY) tools/report.py $(WORK)/results_nusc.json $(WORK)/trained_longer/results_nusc.json --root $(DATA) --version v1.0-trainval --out $(WORK)/report.html
	@$(PY) tools/summarize.py "this demo"=$(WORK)/metrics_summary.json "trained longer"=$(WORK)/trained_longer/metrics_summary.json
	@echo "Why they score so, and where they fail: open $(WORK)/report.html in a browser"

clean-demo:
	rm -rf $(WORK) $(DATA)

test: setup
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest -m "not slow and not gpu" $(PARALLEL)

test-slow: setup
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest -m "slow and not gpu" $(PARALLEL)

# One after the other, since they measure the GPU's memory.
test-gpu: setup
	$(PY) -m pytest -m gpu

test-minimum: setup
	@echo "== Installing the lowest versions that setup.py allows into $(MINIMUM) (about 5 minutes, 6 GB with CUDA builds of torch)"
	@$(PY) tests/minimum_versions.py $(MINIMUM)
	@test -x $(MINIMUM)/venv/bin/python || $(PYTHON) -m venv $(MINIMUM)/venv
	@$(MINIMUM)/venv/bin/python -m pip install --quiet --disable-pip-version-check -r $(MINIMUM)/requirements.txt
	@$(MINIMUM)/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $(MINIMUM)/requirements-no-deps.txt
	@$(MINIMUM)/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(MINIMUM)/venv/bin/python -m pytest -m "not slow" tests/layers tests/weights tests/ops/test_backends.py \
		tests/ops/test_not_finite.py tests/ops/test_mmcv_stand_in.py tests/training/test_averaging.py tests/training/test_mmdet3d_tools.py

# Tests, and what the wheel brings of configs and tools, lie in a folder without the package. build/lib is where
# setuptools collects a wheel's files, also those of earlier ones that are no more.
test-wheel:
	@echo "== Installing the pinned requirements and a wheel into $(WHEEL) (about 2 minutes, 2 GB with a CPU build of torch)"
	@test -x $(WHEEL)/venv/bin/python || $(PYTHON) -m venv $(WHEEL)/venv
	@$(WHEEL)/venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(WHEEL)/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-no-deps.txt
	@rm -rf build/lib build/bdist.* $(WHEEL)/dist $(WHEEL)/elsewhere
	@$(WHEEL)/venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir $(WHEEL)/dist .
	@$(WHEEL)/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall $(WHEEL)/dist/*.whl
	@mkdir $(WHEEL)/elsewhere
	@cp -r tests pyproject.toml $(WHEEL)/venv/lib/python3*/site-packages/bevformer_plugin/.mim/* $(WHEEL)/elsewhere
	cd $(WHEEL)/elsewhere && OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} ../venv/bin/python -m pytest -m "not slow" $(PARALLEL) \
		tests/configs tests/layers tests/ops/test_backends.py tests/ops/test_mmcv_stand_in.py tests/training/test_runs.py

# All settings, or one: make test-processor-avx2-2. With make --keep-going, the others run although one fails.
test-processors: $(SETTINGS:%=test-processor-%)

# Triton's kernels stay out: its interpreter takes long and knows no instruction sets.
# Threads that have nothing to do sleep, as two files of tests on two threads each would wait for each other in loops.
$(SETTINGS:%=test-processor-%): test-processor-%: setup
	@echo "== Tests that compare numbers, setting $*: $($(firstword $(subst -, ,$*))) OMP_NUM_THREADS=$(lastword $(subst -, ,$*))"
	@env $($(firstword $(subst -, ,$*))) OMP_NUM_THREADS=$(lastword $(subst -, ,$*)) OMP_WAIT_POLICY=PASSIVE sh -c '\
		$(PY) -c "import torch; print(\"PyTorch uses\", torch.backends.cpu.get_cpu_capability(), \"on\", torch.get_num_threads(), \"threads\")" && \
		$(PY) -m pytest -q -m "not slow and not gpu" -k "not triton" $(COMPARING) $(if $(filter %-1,$*),$(ONE_THREAD)) $(PARALLEL)'

lint: setup $(VENV)/.linters
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright

# Apart, because pyright brings 60 MB of Node.js that nobody else needs.
$(VENV)/.linters: requirements-lint.txt | setup
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-lint.txt
	@touch $@
