"""A tiny sound cohort on disk, and one call of the command."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result

from lesionforge.cli import main

SHAPE = (8, 8, 8)
# So few voxels cover a head only when they are large.
AFFINE = np.diag([10.0, 10.0, 10.0, 1.0])
COLUMNS = ("subject", "session", "role", "split", "t1w", "flair", "lesion_mask", "brain_mask")


def write_scan(path: Path, data: np.ndarray | None = None, affine: np.ndarray | None = None) -> Path:
    """A NIfTI file of random voxels, unless `data` says otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if data is None:
        data = np.random.default_rng(zlib.crc32(path.name.encode())).random(SHAPE, np.float32)
    nib.Nifti1Image(data, AFFINE if affine is None else affine).to_filename(path)
    return path


def lesion(value: float = 1, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A mask with one lesion of two voxels."""
    mask = np.zeros(shape, np.float32)
    mask[3, 3, 3:5] = value
    return mask


@dataclass
class Sheet:
    """Rows as dicts of cells, and the folder of their files. The first row is line 2 of the sheet."""

    folder: Path
    rows: list[dict[str, str]] = field(default_factory=list)
    columns: tuple[str, ...] = COLUMNS

    def add(self, subject: str, role: str, split: str, **cells: str) -> dict[str, str]:
        """Add a scan and write its images: a mask for patients, none for healthy subjects."""
        stem = f"{subject}_{cells.get('session', '')}"
        row = dict.fromkeys(COLUMNS, "") | {"subject": subject, "role": role, "split": split}
        row |= {"t1w": f"{stem}_T1w.nii.gz", "flair": f"{stem}_FLAIR.nii.gz"}
        if role == "patient":
            row["lesion_mask"] = f"{stem}_mask.nii.gz"
            write_scan(self.folder / row["lesion_mask"], lesion())
        row |= cells
        for column in ("t1w", "flair"):
            write_scan(self.folder / row[column])
        self.rows.append(row)
        return row

    def text(self, separator: str = ",") -> str:
        lines = [self.columns, *([row[name] for name in self.columns] for row in self.rows)]
        return "".join(separator.join(cells) + "\n" for cells in lines)

    def path(self, row: int, column: str) -> Path:
        return self.folder / self.rows[row][column]

    def run(self, *arguments: str, content: str | bytes | None = None, name: str = "cohort.csv") -> Result:
        """Write the sheet and run the command on it; `self.out` is its folder."""
        content = self.text() if content is None else content
        (self.folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        command = ["--threads", "1", "cohort", "--input", str(self.folder / name), "--out", str(self.out), *arguments]
        return CliRunner().invoke(main, command)

    @property
    def out(self) -> Path:
        return self.folder / "results" / "cohort"


@pytest.fixture
def sheet(tmp_path: Path) -> Sheet:
    """Two training patients, a test patient and two healthy subjects: rows 2 to 6 of a sound sheet."""
    sound = Sheet(tmp_path)
    for subject, role, split in (
        ("01", "patient", "train"),
        ("02", "patient", "train"),
        ("03", "patient", "test"),
        ("11", "healthy", "train"),
        ("12", "healthy", ""),
    ):
        sound.add(subject, role, split)
    return sound


@pytest.fixture(name="write_scan")
def write_scan_fixture():
    return write_scan


@pytest.fixture(name="lesion")
def lesion_fixture():
    return lesion


@pytest.fixture
def affine() -> np.ndarray:
    return AFFINE.copy()


@pytest.fixture
def shape() -> tuple[int, ...]:
    return SHAPE
