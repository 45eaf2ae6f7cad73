# One command each. Lint edits nothing; format does.
.PHONY: lint format test bench

lint:
	bash tools/lint.sh

format:
	.venv/bin/python -m ruff check --fix
	.venv/bin/python -m ruff format

test:
	bash tools/test.sh

# Every file of benchmarks/ answers one question and writes benchmarks/results/<name>.csv.
bench:
	set -e; for question in benchmarks/*.py; do .venv/bin/python "$$question"; done
