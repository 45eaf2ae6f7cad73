#!/usr/bin/env bash
# Rules, format and types; edits nothing:  bash tools/lint.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"

make_environment
install_llmasr dev

say "ruff check"
"$venv/bin/python" -m ruff check
say "ruff format --check"
"$venv/bin/python" -m ruff format --check
say "mypy"
"$venv/bin/python" -m mypy
