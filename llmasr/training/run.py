"""The state of a training run: schedule, optimiser, checkpoints that survive a kill at any moment.

Knows nothing of models or data.
"""

import json
import logging
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.optim import AdamW, Optimizer
from tqdm import tqdm

logger = logging.getLogger(__name__)

DECAY_SHARE = 0.4


def adamw(model: nn.Module, weight_decay: float) -> AdamW:
    """AdamW over the trainable parameters; vectors and biases are not decayed."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=True)


def schedule(step: int, warmup: int, steps: int) -> float:
    """Return the share of the peak rate at ``step``: linear up, constant, cosine down."""
    decay = int(DECAY_SHARE * steps)
    if step < warmup:
        return (step + 1) / warmup
    if step < steps - decay:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - steps + decay) / max(decay, 1))))


def join_processes() -> tuple[int, int]:
    """Return (rank, number of processes); under `torchrun` they train one model together."""
    if "WORLD_SIZE" not in os.environ:
        return 0, 1
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return distributed.get_rank(), distributed.get_world_size()


def average_gradients(model: nn.Module) -> None:
    """Make the gradients of all processes equal to their mean; alone, do nothing.

    A parameter that the batch of one process does not use counts as zero there; one that no process
    uses keeps no gradient.
    """
    if not distributed.is_initialized():
        return
    trained = [p for p in model.parameters() if p.requires_grad]
    users = torch.tensor([float(p.grad is not None) for p in trained], device=trained[0].device)
    distributed.all_reduce(users)
    used = [p for p, count in zip(trained, users.tolist(), strict=True) if count]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in used]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    means = flat.split([gradient.numel() for gradient in gradients])
    for parameter, mean in zip(used, means, strict=True):
        parameter.grad = mean.view_as(parameter).clone()


def update(model: nn.Module, optimizer: Optimizer, rate: float, max_norm: float) -> float:
    """Average over processes, clip, step and clear; return the norm of the gradient.

    A gradient that is not finite skips the step.
    """
    average_gradients(model)
    for group in optimizer.param_groups:
        group["lr"] = rate
    norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    if torch.isfinite(norm):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(norm)


def progress(start: int, steps: int) -> Iterable[int]:
    """Yield the steps from ``start`` on, with a bar if there is a terminal."""
    return tqdm(range(start, steps), initial=start, total=steps, disable=None, unit="step")


class Trained(nn.Module):
    """The trained parameters of a model, alone.

    Checkpoints of a run hold them only: the rest may have a thousand times their size, and is where
    it came from.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                self.register_parameter(name.replace(".", "/"), parameter)


class Run:
    """A folder that holds `state.pt` (to go on), `average-*.pt` (to average) and `log.jsonl`.

    Args:
        folder: made if missing.
        keep: how many of the latest averaged checkpoints stay.
    """

    def __init__(self, folder: Path, keep: int = 6) -> None:
        self.folder, self.keep = folder, keep
        self.sums: dict[str, float] = defaultdict(float)
        self.since, self.count = time.monotonic(), 0
        folder.mkdir(parents=True, exist_ok=True)

    def resume(self, model: nn.Module, optimizer: Optimizer) -> int:
        """Load the latest state, if any, and return the step to go on with."""
        path = self.folder / "state.pt"
        if not path.exists():
            return 0
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        return state["step"]

    def save(self, model: nn.Module, optimizer: Optimizer, step: int) -> None:
        """Store everything needed to go on with ``step``, and a copy of the weights to average."""
        state = {
            "model": model.state_dict(), "optimizer": optimizer.state_dict(),
            "step": step, "rng": torch.get_rng_state(),
        }  # fmt: skip
        _replace(self.folder / "state.pt", state)
        _replace(self.folder / f"average-{step:08d}.pt", model.state_dict())
        for path in self._averaged()[: -self.keep]:
            path.unlink()

    def average(self) -> dict[str, Tensor]:
        """Return the mean of the kept checkpoints."""
        paths = self._averaged()
        total = torch.load(paths[0], map_location="cpu", weights_only=True)
        for path in paths[1:]:
            for name, value in torch.load(path, map_location="cpu", weights_only=True).items():
                total[name] += value
        return {name: value / len(paths) for name, value in total.items()}

    def log(self, step: int, values: dict[str, float], every: int) -> None:
        """Add up values; every ``every`` steps log their means and append them to `log.jsonl`."""
        self.count += 1
        for name, value in values.items():
            self.sums[name] += value
        if (step + 1) % every:
            return
        means = {name: float(f"{total / self.count:.5g}") for name, total in self.sums.items()}
        seconds = time.monotonic() - self.since
        entry = {"step": step + 1, **means, "steps_per_second": round(self.count / seconds, 3)}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        logger.info(" ".join(f"{name} {value:g}" for name, value in entry.items()))
        self.sums.clear()
        self.since, self.count = time.monotonic(), 0

    def _averaged(self) -> list[Path]:
        return sorted(self.folder.glob("average-*.pt"))


def _replace(path: Path, value: object) -> None:
    partial = path.with_suffix(".part")
    torch.save(value, partial)
    partial.replace(path)
