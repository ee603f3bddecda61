"""Scans with further contrasts."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lesionforge.images import Prepared, derivative, write_volume


@pytest.fixture
def add_contrast() -> Callable[[Path, str], None]:
    """A function that gives a prepared folder a further contrast: the T1w with dark and bright swapped."""

    def add(folder: Path, name: str) -> None:
        prepared = Prepared.open(folder)
        scan = prepared.read()
        write_volume(-scan.t1w, scan.affine, folder / derivative(prepared.scan_id, prepared.grid, f"desc-preproc_{name}"))

    return add
