"""What lies in a checkpoint folder: `config.json`, and tensors by name from one file or many.

Knows file layouts, no model. Nothing is downloaded, and nothing is unpickled but tensors. What is
wrong with a folder is said with the file's name.
"""

import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from llmasr.files import read_json

SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
# In the order in which transformers looks for them.
LAYOUTS = tuple(name for file in SINGLE_FILES for name in (file, f"{file}.index.json"))


class WeightFiles(NamedTuple):
    """The files that hold the weights, and which file an index promises each name in."""

    paths: list[Path]
    promised: dict[str, str]


def read_config(folder: Path) -> dict[str, Any]:
    """Return the fields of ``folder/config.json``.

    Raises:
        FileNotFoundError: the folder or the file is missing.
        ValueError: the folder is an adapter, or the file is damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; a folder with config.json and weights is needed, "
            "and nothing is downloaded"
        )
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{folder}: holds adapter_config.json, so it is a PEFT adapter; "
            "give the folder of the whole model, and load the adapter on top"
        )
    return read_json(folder / "config.json")


def find_weights(folder: Path) -> WeightFiles:
    """Return the files of weights, all of which are there and look like weights.

    Raises:
        FileNotFoundError: there are none, or a shard is missing.
        ValueError: the index is damaged, or a file is a placeholder for one not fetched.
    """
    present = [name for name in LAYOUTS if (folder / name).is_file()]
    if not present:
        raise FileNotFoundError(f"{folder}: no weights; accepted are {', '.join(LAYOUTS)}")
    chosen = folder / present[0]
    promised = _read_index(chosen) if chosen.suffix == ".json" else {}
    paths = [folder / name for name in sorted(set(promised.values()))] or [chosen]
    absent = [path.name for path in paths if not path.is_file()]
    if absent:
        raise FileNotFoundError(
            f"{chosen}: names {len(paths)} files, of which are missing: {', '.join(absent)}"
        )
    for path in paths:
        _refuse_placeholder(path)
    return WeightFiles(paths, promised)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return every tensor of the folder by name, on the CPU, as stored; big ones stay on disk.

    Raises:
        FileNotFoundError: there are no weights, or a shard is missing.
        ValueError: a file is damaged, or does not hold what the index promises.
    """
    files = find_weights(folder)
    weights: dict[str, Tensor] = {}
    for path in files.paths:
        found = _read_file(path)
        absent = [name for name, file in files.promised.items() if file == path.name]
        absent = sorted(set(absent) - found.keys())
        if absent:
            raise ValueError(f"{path}: {absent[0]} is missing, which the index promises there")
        twice = sorted(found.keys() & weights.keys())
        if twice:
            raise ValueError(f"{path}: {twice[0]} is also in another file of the folder")
        weights |= found
    return weights


def _read_index(path: Path) -> dict[str, str]:
    promised = read_json(path).get("weight_map")
    if not isinstance(promised, dict) or not promised:
        raise ValueError(f"{path}: weight_map is missing or empty; it gives the file of each name")
    for name, file in promised.items():
        # a file beside the index, so that an index cannot point out of its folder
        if not isinstance(file, str) or Path(file).name != file:
            raise ValueError(f"{path}: weight_map gives {name} the file {file!r}; a name is needed")
    return promised


def _refuse_placeholder(path: Path) -> None:
    with path.open("rb") as file:
        if b"git-lfs" in file.read(100):
            raise ValueError(f"{path}: a Git LFS pointer, not weights; run `git lfs pull`")


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # files of torch before 1.6 are no zip archives, and cannot be mapped into memory
        mapped = zipfile.is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: damaged, or no file of weights: {reason}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}; tensors by name are needed")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{path}: {name} is a {type(value).__name__}; a tensor is needed")
    return {name: value.detach() for name, value in content.items()}
