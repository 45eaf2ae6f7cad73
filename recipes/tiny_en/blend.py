"""Average the weights of a model with those of the model that it went on from.

    python recipes/tiny_en/blend.py --old llmasr/assets/tiny-en --new runs/tiny_en/tuned --share 0.7

What further training forgot comes back in part, and what it learned mostly stays (Wortsman et al.,
arXiv 2109.01903). The result replaces `--new`.
"""

import argparse
from pathlib import Path

import torch

from llmasr.models.checkpoint import load_pretrained, save_pretrained

# With these at zero, a block of the C-Former that the old model lacks changes nothing there.
LAST_OF_BLOCK = ("attention.output.weight", "attention.output.bias",
                 "feed_forward.4.weight", "feed_forward.4.bias")  # fmt: skip


def main(old: Path, new: Path, share: float) -> None:
    """Blend and save; ``share`` in [0, 1] is that of the new model."""
    bundle = load_pretrained(new)
    before, after = load_pretrained(old).model.state_dict(), bundle.model.state_dict()
    for name, value in after.items():
        if name not in before:
            before[name] = value * (not name.endswith(LAST_OF_BLOCK))
    blended = {name: torch.lerp(before[name], after[name], share) for name in after}
    bundle.model.load_state_dict(blended)
    save_pretrained(bundle, new)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--old", type=Path, required=True)
    parser.add_argument("--new", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.7)
    arguments = parser.parse_args()
    main(arguments.old, arguments.new, arguments.share)
