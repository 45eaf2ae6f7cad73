"""The order of the rooms, the fences around third parties, and what an import costs.

Imports are read from the source, those inside functions too; nothing is imported to be checked.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import llmasr

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "llmasr"

# A room sees itself, those of its own line, and every line above.
ORDER = [
    {"audio", "config", "files", "filterbank", "media", "prompts", "text"},
    {"ops"},
    {"modules"},
    {"models"},
    {"importers"},
    {"formats", "reply", "transcript"},
    {"decoding"},
    {"options"},
    {"api"},
    {"cli", "doctor", "hub", "serving"},
]
UP_TO_MODELS = set.union(*ORDER[:4])
UP_TO_DECODING = set.union(*ORDER[:7])
MAY_SEE = {
    room: set.union(*ORDER[: line + 1]) for line, rooms in enumerate(ORDER) for room in rooms
} | {
    "scoring": {"scoring"},
    "analysis": UP_TO_MODELS | {"analysis"},
    "bench": {room for rooms in ORDER[:9] for room in rooms} | {"bench", "scoring"},
    "data": UP_TO_DECODING | {"data"},
    "training": UP_TO_DECODING | {"data", "training"},
}
# The command line is where the side rooms meet.
MAY_SEE["cli"] = set(MAY_SEE)

# Third parties, and the only rooms that know them.
FENCES = {
    "accelerate": {"training"},
    "PIL": {"media"},
    "av": {"audio", "media"},
    "cn2an": {"scoring"},
    "fastapi": {"serving"},
    "jiwer": {"scoring"},
    "kenlm": {"decoding"},
    "lhotse": {"data"},
    "librosa": {"audio"},
    "numba": {"ops"},
    "opencc": {"scoring"},
    "peft": {"models"},
    "pyctcdecode": {"decoding"},
    "rapidfuzz": {"scoring"},
    "soundfile": {"audio"},
    "soxr": {"audio"},
    "tensorboard": {"training"},
    "torchao": {"models"},
    "torchaudio": {"audio", "data", "filterbank"},
    "triton": {"ops"},
    "typer": {"cli"},
}

MACHINE_PATH = re.compile(r"(?<![\w.])/(home|root|work|mnt|Users|opt|scratch|nfs)/\w")
HOST = re.compile(r"https?://(?!localhost|127\.0\.0\.1)")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = sorted(set(SOURCES) - {"llmasr"})


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def import_nodes(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif not is_type_checking(child):
            yield from import_nodes(child)


def imported(module: str) -> set[str]:
    """Modules that `module` imports: ours to the deepest known name, others as written."""
    found: set[str] = set()
    for node in import_nodes(ast.parse(SOURCES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        else:
            assert node.level == 0, f"{module} uses a relative import"
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(members & set(SOURCES) or {node.module})
    return found


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_room_has_a_place_in_the_order():
    assert {room(module) for module in MODULES} <= set(MAY_SEE)


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_from_rooms_before_it(module):
    ours = {name for name in imported(module) if name.startswith("llmasr.")}
    wrong = {name for name in ours if room(name) not in MAY_SEE[room(module)]}
    assert not wrong, f"{module} may not import {wrong}"


@pytest.mark.parametrize("module", MODULES)
def test_third_parties_stay_behind_their_fences(module):
    packages = {name.split(".")[0] for name in imported(module)}
    wrong = {name for name in packages & set(FENCES) if room(module) not in FENCES[name]}
    assert not wrong, f"{module} may not import {wrong}"


def test_every_folder_with_code_is_a_package_and_is_installed():
    folders = {path.parent for path in SOURCES.values()}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


def test_imports_form_no_cycle():
    graph = {module: imported(module) & set(SOURCES) for module in SOURCES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("import cycle: " + " -> ".join(error.args[1]))


@pytest.mark.parametrize("module", SOURCES)
def test_no_path_of_a_machine_and_no_host_is_written_into_the_package(module):
    source = SOURCES[module].read_text(encoding="utf-8")
    found = [match.group() for match in (MACHINE_PATH.search(source), HOST.search(source)) if match]
    assert not found


def loaded_after(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}; import sys; print(*(name.split('.')[0] for name in sys.modules))"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).split())


def test_importing_the_library_loads_no_third_party():
    assert not loaded_after("import llmasr") & {"torch", "numpy", "transformers", "typer"}


@pytest.mark.parametrize(
    "statement", ["import llmasr; llmasr.score", "from llmasr.scoring import read_texts, score"]
)
def test_scoring_loads_no_torch(statement):
    assert not loaded_after(statement) & {"torch", "transformers"}


@pytest.mark.parametrize("name", llmasr.__all__)
def test_a_public_name_is_there_and_listed(name):
    assert getattr(llmasr, name) is not None
    assert name in dir(llmasr)


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'transscribe'"):
        llmasr.transscribe  # noqa: B018
