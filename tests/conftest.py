"""What all tests share: the folder of real speech, and two threads for every numeric library."""

import os
from pathlib import Path

import pytest

# Before torch or numba is imported: they read these once.
for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "2")

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real speech that stands beside the checkout on the project's machines."""
    if not DATA.is_dir():
        pytest.skip(f"real speech is not here: no folder {DATA}")
    return DATA
