"""What all tests share: the folder of real speech, one thread per library, and no network."""

import os
from pathlib import Path

import pytest

# Set before torch, numba and transformers are imported: they read these once. Tiny models are
# slower on two threads, and ten times slower where other work runs beside them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real speech that stands beside the checkout on the project's machines."""
    if not DATA.is_dir():
        pytest.skip(f"real speech is not here: no folder {DATA}")
    return DATA
