# Sourced by the other scripts: one virtual environment for all of them, .venv in the repository.
# PYTHON=python3.12 chooses the interpreter of a new environment; pip follows its own settings.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

say() { printf '==> %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if is_recent "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or newer among: ${PYTHON:-python3 python3.13 python3.12 python3.11}." \
    "On Debian 12 and Ubuntu 24.04: apt-get install python3 python3-venv;" \
    "on Ubuntu 22.04: apt-get install python3.11 python3.11-venv"
}

is_healthy() { is_recent "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; }

make_environment() {
  if is_healthy; then
    return
  fi
  local python version
  python=$(find_python)
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  # Debian keeps the part of venv that brings pip in a package of its own.
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "Python $version cannot make virtual environments: apt-get install python$version-venv"
  say "making a virtual environment in .venv with Python $version"
  "$python" -m venv --clear "$venv"
}

# install_llmasr [EXTRAS]: nothing happens while the files that name the dependencies are unchanged.
install_llmasr() {
  local extras=${1:+[$1]} stamp wanted
  stamp=$venv/llmasr-${1:-base}.stamp
  wanted=$(cat "$root"/{setup.cfg,pyproject.toml,tools/constraints.txt} | cksum)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    return
  fi
  say "installing llmasr$extras; a new environment downloads PyTorch and CUDA libraries, several GB"
  "$venv/bin/python" -m pip install --no-input --constraint "$root/tools/constraints.txt" \
    --editable "$root$extras" | sed -un '/\.metadata/d; s#^ *Downloading \(.*/\)\?#    #p'
  echo "$wanted" >"$stamp"
}
