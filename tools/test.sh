#!/usr/bin/env bash
# Lint, types and the whole test suite:  bash tools/test.sh [pytest arguments]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"

bash tools/lint.sh

say "pytest"
"$venv/bin/python" -m pytest "$@"
