"""The loop of the recipes: it resumes, logs every part, and processes train one model together."""

import json
import subprocess
import sys
from dataclasses import dataclass
from itertools import count

import pytest
import torch
from torch import nn

from llmasr.training.loop import fit

TOGETHER = """
import sys
import torch
from torch import distributed, nn
from llmasr.training.run import average_gradients, join_processes

rank, processes = join_processes()
parts = nn.ModuleDict({name: nn.Linear(1, 1, bias=False) for name in ("both", "first", "nobody")})
used = parts["both"](torch.ones(1)) * (1 + 2 * rank)
if rank == 0:
    used = used + parts["first"](torch.ones(1)) * 4
used.sum().backward()
average_gradients(parts)
found = {name: None if p.weight.grad is None else p.weight.grad.item() for name, p in parts.items()}
assert found == {"both": 2.0, "first": 2.0, "nobody": None}, (rank, found)
distributed.destroy_process_group()
"""


@dataclass(frozen=True)
class Recipe:
    steps: int = 8
    rate: float = 0.1
    weight_decay: float = 0.0
    log_every: int = 2
    save_every: int = 3


def trained(folder, recipe=Recipe()):
    """Fit a line to the number of the step."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    seen = []

    def batches(start):
        return count(start)

    def objective(step):
        seen.append(step)
        loss = (model(torch.ones(1)) - step).square().sum()
        return {"loss": loss, "half": loss / 2}

    assert fit(model, recipe, folder, batches, objective, warmup=2)
    return model, seen


def test_every_step_has_its_batch_and_every_part_is_logged(tmp_path):
    _, seen = trained(tmp_path)
    assert seen == list(range(8))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    assert all(line["half"] == pytest.approx(line["loss"] / 2, rel=1e-3) for line in lines)


def test_a_run_goes_on_where_it_was_saved(tmp_path):
    whole, _ = trained(tmp_path / "whole")
    trained(tmp_path / "cut", Recipe(steps=5))
    resumed, seen = trained(tmp_path / "cut")
    assert seen == [5, 6, 7]
    assert not torch.equal(resumed.weight, nn.Linear(1, 1).weight)
    assert resumed.weight.shape == whole.weight.shape


def test_the_last_step_is_saved_whatever_the_interval(tmp_path):
    trained(tmp_path, Recipe(steps=4))
    assert (tmp_path / "average-00000004.pt").exists()


def test_processes_average_what_any_of_them_uses(tmp_path):
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", script]
    subprocess.run([*map(str, command)], check=True, capture_output=True, timeout=120)
