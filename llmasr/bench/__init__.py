"""A benchmark of speech recognisers, ours and others', by one contract: sounds in, texts out.

Error rates come with intervals, speed is measured as the Open ASR leaderboard does it, and every
result carries the card of its run.

    from llmasr.bench import Options, Setup, bench, find_system, read_dataset
    data = read_dataset("manifest.jsonl", split="test")
    results = bench([find_system("ours:tiny-en", Setup())], [data], Options(normalizer="llmasr-en"))
"""

from llmasr.bench.contract import Setup, Sound, System
from llmasr.bench.dataset import Dataset, read_dataset
from llmasr.bench.results import Result, write_json
from llmasr.bench.runner import Options, bench
from llmasr.bench.systems import SYSTEMS, find_system
from llmasr.bench.tables import to_html, to_markdown

__all__ = [
    "SYSTEMS",
    "Dataset",
    "Options",
    "Result",
    "Setup",
    "Sound",
    "System",
    "bench",
    "find_system",
    "read_dataset",
    "to_html",
    "to_markdown",
    "write_json",
]
