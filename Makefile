# Short names for what people type. Everything else is a command in scripts/: see `python scripts/run.py`.
PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help setup init demo serve validate cluster bootstrap cluster-ui cluster-down test coverage test-models test-features test-cluster test-vm bench bench-scale bench-cluster scan lock

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile
	@printf '  %s\t%s\n' 'python scripts/run.py' 'every command in scripts/, with what it does'

setup: ## what the commands and the checks need, in .venv
	@$(PYTHON) scripts/setup.py validate

init: ## your team's values in the place of the template's: make init ARGS="--repo ... --bucket ..."
	@$(PYTHON) scripts/setup.py validate && .venv/bin/python scripts/init_fork.py $(ARGS)

demo: ## from training data to a served model in production, by commits, on this machine
	@$(PYTHON) scripts/setup.py demo && .venv/bin/python scripts/demo.py

serve: ## train a model and serve it on port 5001, without Git, S3 or Kubernetes
	@$(PYTHON) scripts/setup.py serve && .venv/bin/python scripts/serve_model.py

validate: ## render every overlay and check it
	@$(PYTHON) scripts/setup.py validate && .venv/bin/python scripts/validate.py

cluster: ## Kubernetes, KServe and Argo CD on this machine, without Docker; the first time it builds them, in 13 minutes
	@$(PYTHON) scripts/setup.py cluster && .venv/bin/python scripts/local_cluster.py up

bootstrap: ## hand the cluster that your kubeconfig names over to Git: make bootstrap ARGS="--context NAME"
	@$(PYTHON) scripts/setup.py status && .venv/bin/python scripts/bootstrap.py $(ARGS)

cluster-ui: ## the Applications in its Argo CD, in the browser
	@.venv/bin/python scripts/local_cluster.py ui

cluster-down: ## stop it; `make cluster` goes on where it was
	@.venv/bin/python scripts/local_cluster.py down

test: ## everything that CI checks
	@$(PYTHON) scripts/setup.py test && .venv/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder && cd model-src && .venv/bin/python -m pytest -n auto --dist loadfile

test-models: ## the part of it in model-src/, which is all that a change of models alone needs
	@$(PYTHON) scripts/setup.py test && cd model-src && .venv/bin/python -m pytest -n auto --dist loadfile

coverage: ## the lines of scripts/ that no test runs in its own process
	@$(PYTHON) scripts/setup.py test && .venv/bin/python -m pytest -n auto --dist loadfile --cov=scripts --cov-report=term-missing:skip-covered

test-features: ## the example of a feature store, with Feast in an environment of its own
	@$(PYTHON) scripts/setup.py test && $(PYTHON) scripts/setup.py test-features && cd model-src && .venv/bin/python -m pytest -m feast tests/test_feature_store.py

test-cluster: ## the same repository on a real API server, KServe and Argo CD
	@$(PYTHON) scripts/setup.py test && $(PYTHON) scripts/setup.py test-cluster && .venv/bin/python -m pytest -m cluster tests/cluster

test-vm: ## the user data of an instance on a clean root with a systemd of its own; needs root on Linux
	@$(PYTHON) scripts/setup.py test && $(PYTHON) scripts/setup.py test-vm && .venv/bin/python tests/vm $(ARGS)

bench: ## figures: what finds which fault, one edit, one commit, all checks, many writers; each beside another way
	@$(PYTHON) scripts/setup.py bench && for bench in corpus_table commands writers; do .venv/bin/python tests/bench/$$bench.py || exit 1; done

bench-scale: ## figures: what one change costs among 3 apps and up to 1,000 with 10,000 releases, drawn in growth.svg (15 min)
	@$(PYTHON) scripts/setup.py bench && .venv/bin/python tests/bench/scale.py --plot growth.svg $(ARGS)

bench-cluster: ## figures: from a merge to the live object, among 9 Applications and among 100: make bench-cluster ARGS="--apps 9 1000"
	@$(PYTHON) scripts/setup.py test && $(PYTHON) scripts/setup.py cluster && .venv/bin/python tests/bench/merge_to_live.py $(ARGS)

scan: ## known vulnerabilities in every pin and program; needs the network, and all programs, built in 17 minutes
	@$(PYTHON) scripts/setup.py scan && .venv/bin/python scripts/scan.py

lock: ## the locks again, after a dependency was changed
	@$(PYTHON) scripts/setup.py test && .venv/bin/python scripts/lock.py
