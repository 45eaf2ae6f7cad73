#!/usr/bin/env bash
# From a fresh clone to a transcript, in one command:  bash tools/quickstart.sh
# Debian or Ubuntu with Python 3.11 or newer. Running it again only transcribes.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"

make_environment
install_llmasr

print_words='
import json, sys
for segment in json.load(sys.stdin)["segments"]:
    for word in segment["words"]:
        print("{start:8.2f} {end:8.2f}  {text}".format(**word))
'
clip=llmasr/assets/example.flac
say "llmasr transcribe $clip"
"$venv/bin/llmasr" transcribe "$clip" --format txt
say "llmasr transcribe $clip --format json, its words: start and end in seconds, text"
"$venv/bin/llmasr" transcribe "$clip" --format json | "$venv/bin/python" -c "$print_words"
say "now yours: .venv/bin/llmasr transcribe FILE"
