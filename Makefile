# 变量可以在命令行上改：make demo PYTHON=python3.12 VENV=/tmp/venv
PYTHON   ?= python3
VENV     ?= .venv
PIP_ARGS ?=
LAB_ARGS ?=
BENCH_ARGS ?=
# OneFlow 只有 Python 3.10 的安装包；依次试这几个，第一个是 3.10 的就用它
PYTHON_ONEFLOW ?= python3.10 $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python) $(PYTHON)
VENV_ONEFLOW   ?= .venv-oneflow

BIN := $(VENV)/bin
# 装好之后才写下的记号；pyproject.toml 或 constraints.txt 改了就重装。
CORE   := $(VENV)/.installed-core
COURSE := $(VENV)/.installed-course
TEST   := $(VENV)/.installed-test
BENCH  := $(VENV)/.installed-bench
ONEFLOW := $(VENV_ONEFLOW)/.installed
ONEFLOW_REFERENCE := $(VENV_ONEFLOW)/reference
PINS   := pyproject.toml constraints.txt

NOTEBOOKS := $(wildcard chapters/*.ipynb chapters/solutions/*.ipynb)
NBVAL     := --nbval-lax --nbval-current-env --nbval-cell-timeout=120

.DEFAULT_GOAL := help
.PHONY: help demo course test test-official test-oneflow bench costs photos figures
.PHONY: lint format clean

help:
	@echo 'make demo    装好 sam_lite，用自带的小权重分割一张真实照片'
	@echo 'make course  把章节复制到 my/（不覆盖你的文件），打开 JupyterLab'
	@echo 'make test    代码检查、类型检查、全部测试和全部笔记本'
	@echo 'make test-official  有网络时：下载官方 vit_b（375 MB）和 car.png，核对哈希和预测 IoU；'
	@echo '             已经有文件就给 FILE=权重 PICTURE=car.png；镜像用环境变量'
	@echo '             SAM_LITE_MIRROR（权重）和 HF_ENDPOINT（图片，如 https://hf-mirror.com）'
	@echo 'make test-oneflow  在 OneFlow 0.9.0 里运行同一份代码，与 PyTorch 逐项相比；要 Linux'
	@echo '             x86_64 和 Python 3.10（PYTHON_ONEFLOW=路径），另装一个环境，下载约 1.9 GB'
	@echo 'make bench   与官方、transformers 比时间和内存（约一小时），结果在 benchmarks/RESULTS.md；'
	@echo '             BENCH_ARGS=--quick 只量一轮、不记下来；BENCH_ARGS="--only click --update"'
	@echo '             只重量一项，换掉结果里的那一项'
	@echo 'make costs   换型号、输入边长、点数，各花多少时间和内存（十几分钟，要 20 GB 内存），'
	@echo '             结果在 benchmarks/COSTS.md，画出 figures/costs_*.svg'
	@echo 'make photos  在十张真照片上打分，结果在 benchmarks/PHOTOS.md，画出 figures/photos_masks.jpg'
	@echo 'make figures 重画 figures/ 里的图'
	@echo 'make lint    只检查：代码、类型、谁可以导入谁、中文排版'
	@echo 'make format  整理代码格式'
	@echo 'make clean   删去环境和缓存，保留 my/ 和 runs/'
	@echo '变量：PYTHON=python3  VENV=.venv  PIP_ARGS=（给 pip 的参数，例如镜像）'

demo: $(CORE)
	$(BIN)/sam-lite demo

course: $(COURSE)
	$(BIN)/python chapters/start.py $(LAB_ARGS)

# 两个进程已经占满两个核：各开两个线程，等着的线程空转，要慢三四倍
test: lint
	@status=0; (set -x; OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests $(if $(NOTEBOOKS),$(NBVAL) $(NOTEBOOKS))) || status=$$?; \
	$(BIN)/python tests/with_oneflow/status.py $(ONEFLOW_REFERENCE)/report.json; exit $$status

test-official: $(TEST)
	$(BIN)/python tests/check_official_weights.py $(if $(FILE),--file '$(FILE)') $(if $(PICTURE),--picture '$(PICTURE)')

test-oneflow: $(TEST) $(ONEFLOW)
	PYTHONPATH=. $(BIN)/python tests/with_oneflow/reference.py $(ONEFLOW_REFERENCE)
	SAM_LITE_REFERENCE=$(ONEFLOW_REFERENCE) PYTHONPATH=. $(VENV_ONEFLOW)/bin/python -m pytest --confcutdir=tests/with_oneflow tests/with_oneflow; status=$$?; \
	$(BIN)/python tests/with_oneflow/status.py $(ONEFLOW_REFERENCE)/report.json --ran $(if $(REPORT),--markdown $(REPORT)); exit $$status

bench: $(BENCH)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

costs: $(BENCH)
	$(BIN)/python -m benchmarks --only sides,points,prompts --rounds 1 --update
	$(BIN)/python figures costs

photos: $(COURSE)
	$(BIN)/python -m benchmarks.photos --write
	$(BIN)/python figures photos_masks

figures: $(COURSE)
	$(BIN)/sam-lite demo --all --out figures/demo.jpg
	$(BIN)/python figures

lint: $(TEST)
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/typography.py

format: $(TEST)
	$(BIN)/python -m ruff check --fix
	$(BIN)/python -m ruff format

clean:
	rm -rf $(VENV) $(VENV_ONEFLOW) build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# 第一行把过旧的 Python 挡在外面；环境已经有了，venv 会接着用它。
define install
@$(PYTHON) -c "import sys; sys.version_info >= (3, 10) or sys.exit('需要 Python 3.10 或更新的版本，现在是 ' + sys.version.split()[0])"
$(PYTHON) -m venv $(VENV)
$(BIN)/python -m pip install -c constraints.txt -e '$(WHAT)' $(PIP_ARGS)
endef

$(CORE): WHAT := .
$(CORE): $(PINS)
	$(install)
	@touch $(CORE)

$(COURSE): WHAT := .[course]
$(COURSE): $(PINS)
	$(install)
	@touch $(CORE) $(COURSE)

$(TEST): WHAT := .[course,test]
$(TEST): $(PINS) tests/requirements-nodeps.txt
	$(install)
	$(BIN)/python -m pip install --no-deps -r tests/requirements-nodeps.txt $(PIP_ARGS)
	@touch $(CORE) $(COURSE) $(TEST)

$(BENCH): WHAT := .[bench]
$(BENCH): $(PINS) tests/requirements-nodeps.txt
	$(install)
	$(BIN)/python -m pip install --no-deps -r tests/requirements-nodeps.txt $(PIP_ARGS)
	@touch $(CORE) $(BENCH)

$(ONEFLOW): tests/requirements-oneflow.txt
	@found=; for python in $(PYTHON_ONEFLOW); do \
	  if $$python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo '没有找到 Python 3.10：OneFlow 0.9.0 没有更新的 Python 的安装包。装一个，再告诉 make：'; \
	  echo '  conda create -y -n py310 python=3.10   之后 make test-oneflow PYTHON_ONEFLOW="$$(conda run -n py310 which python)"'; \
	  echo '  uv python install 3.10                 之后 make test-oneflow PYTHON_ONEFLOW="$$(uv python find 3.10)"'; \
	  echo '  pyenv install 3.10                     之后 make test-oneflow'; \
	  exit 1; \
	fi; \
	set -x; $$found -m venv $(VENV_ONEFLOW)
	$(VENV_ONEFLOW)/bin/python -m pip install -r tests/requirements-oneflow.txt $(PIP_ARGS)
	@touch $(ONEFLOW)
