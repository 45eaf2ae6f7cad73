#!/usr/bin/env bash
# Everything from nothing to the tables of RESULTS.md; every step keeps what is there.
set -euo pipefail
RUNS=${RUNS:-runs/scenes_masr}
DATA=${DATA:-$RUNS/data}
SPEECH=${SPEECH:-runs/tiny_en/features}   # what recipes/tiny_en/prepare.py wrote
PROCESSES=${PROCESSES:-2}
HERE=recipes/scenes_masr
export OMP_NUM_THREADS=1
train() { torchrun --nproc-per-node "$PROCESSES" "$@"; }

python $HERE/generate.py --out "$DATA"
python $HERE/gallery.py --data "$DATA" --out "$RUNS/gallery"
train $HERE/eyes.py --data "$DATA" --runs "$RUNS"
python $HERE/prepare.py --data "$DATA" --runs "$RUNS"
train $HERE/see.py --data "$DATA" --runs "$RUNS"
train $HERE/joint.py --data "$DATA" --runs "$RUNS" --speech "$SPEECH"
train $HERE/listen.py --data "$DATA" --runs "$RUNS" --speech "$SPEECH"
train $HERE/tune.py --data "$DATA" --runs "$RUNS"
python $HERE/evaluate.py --data "$DATA" --model "$RUNS/tuned" --out "$RUNS/hypotheses" --report $HERE/RESULTS.md
