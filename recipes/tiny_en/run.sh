#!/usr/bin/env bash
# The whole recipe, in order. Every step keeps what is there and goes on where it was stopped.
#   DATA=../shared/data bash recipes/tiny_en/run.sh
# Needs: pip install -e ".[train]"; apt-get install espeak-ng flite
set -euo pipefail
cd "$(dirname "$0")/../.."
data=${DATA:-../shared/data}
here=recipes/tiny_en
runs=runs/tiny_en
processes=${PROCESSES:-2}

# One process a core, with one thread each, is faster than one process with all of them.
export OMP_NUM_THREADS=1
together() { torchrun --nproc-per-node "$processes" "$@" --batch-seconds "$((60 / processes))"; }

python $here/texts.py --data "$data" --out $runs/text
python $here/synthesise.py --text $runs/text --out $runs/synthetic
python $here/noises.py --data "$data" --out $runs/noise
python $here/prepare.py --data "$data" --runs $runs
torchrun --nproc-per-node "$processes" $here/language_model.py --batch-size "$((64 / processes))"
together $here/acoustic.py
together $here/align.py
together $here/tune.py
together $here/joint.py
rm -rf llmasr/assets/tiny-en
cp -r $runs/joined llmasr/assets/tiny-en
python $here/evaluate.py --model tiny-en --data "$data" --report $here/RESULTS.md
