"""What the stages of this recipe share: flags from the fields of a dataclass."""

import argparse
from dataclasses import fields
from typing import TypeVar

Recipe = TypeVar("Recipe")


def from_command_line(kind: type[Recipe], description: str | None) -> Recipe:
    """Read the fields of the dataclass ``kind`` as flags."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for field in fields(kind):  # type: ignore[arg-type]
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=field.type, default=field.default)
    return kind(**vars(parser.parse_args()))
