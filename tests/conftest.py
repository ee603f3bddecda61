"""Fixtures that more than one stage needs."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge import nets
from lesionforge.cascade.card import cascade_entries
from lesionforge.cascade.settings import NETWORKS, CascadeConfig
from lesionforge.cli import main
from lesionforge.images import checksum, derivative, grid_entities, write_json, write_mask, write_volume

pytest_plugins = ["cluster_of_two"]
VOXEL_MM = 2.0
CENTRES = [(14, 16, 20), (25, 22, 18), (18, 26, 24), (22, 14, 15), (26, 26, 26)]


@pytest.fixture(scope="session")
def write_blob_scan() -> Callable[..., Path]:
    """A function that writes a prepared folder in miniature: a ball of brain in 40 voxels a side, bright balls as lesions."""

    def write(root: Path, scan_id: str, seed: int, with_lesions: bool = True, with_mask: bool = True) -> Path:
        rng = np.random.default_rng(seed)
        place = np.indices((40, 40, 40))
        brain = ((place - 20) ** 2).sum(axis=0) <= 15**2
        lesion = np.zeros(brain.shape, bool)
        for centre in CENTRES if with_lesions else []:
            away = place - (np.array(centre) + rng.integers(-1, 2, size=3))[:, None, None, None]
            lesion |= (away**2).sum(axis=0) <= 2.5**2
        affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
        affine[:3, 3] = -40
        shade = 0.5 * np.sin(place[0] / 3)
        flair = (rng.normal(size=brain.shape) * 0.4 + shade + 3 * lesion) * brain
        t1w = (rng.normal(size=brain.shape) * 0.4 - shade - 2 * lesion) * brain
        folder = root / scan_id
        folder.mkdir(parents=True)
        name = (scan_id, grid_entities(VOXEL_MM))
        write_volume(t1w, affine, folder / derivative(*name, "desc-preproc_T1w"))
        write_volume(flair, affine, folder / derivative(*name, "desc-preproc_FLAIR"))
        write_mask(brain, affine, folder / derivative(*name, "desc-brain_mask"), "brain")
        write_volume(3 * brain.astype(np.uint8), affine, folder / derivative(*name, "dseg"))
        if with_mask:
            write_mask(lesion, affine, folder / derivative(*name, "label-lesion_mask"), "lesions")
        return folder

    return write


@pytest.fixture(scope="session")
def write_cascade_folder() -> Callable[..., Path]:
    """A function that writes a cascade's folder with a sound card, whose networks are none: only what reads cards takes it."""

    def write(folder: Path, voxel_mm: float = 1.0, **entries: object) -> Path:
        folder.mkdir()
        files = [folder / f"{name}.keras" for name in NETWORKS]
        for file in files:
            file.write_bytes(b"weights")
        sums = {"checksums": {file.name: checksum(file) for file in files}}
        write_json(cascade_entries(CascadeConfig(), voxel_mm) | sums | entries, folder / nets.CARD)
        return folder

    return write


@pytest.fixture(scope="session")
def sheet_writer() -> Callable[[Path, list[tuple[str, str, str]]], Path]:
    """`write_sheet`, for tests."""
    return write_sheet


def write_scan(path: Path, voxels: np.ndarray) -> str:
    """Write a tiny image beside the sheet; returns the cell for the sheet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([10.0, 10.0, 10.0, 1.0])), path)  # a head's size in few voxels
    return path.name


def write_sheet(sheet: Path, rows: list[tuple[str, str, str]]) -> Path:
    """A cohort of tiny noise images, which only CHECK reads in a stub run; rows are (subject, role, split).

    The sheet is of the awkward kind: byte-order mark, CRLF, quoted cells, file names with blanks and accents.
    """
    generator = np.random.default_rng(1)
    lines = ["subject,role,split,t1w,flair,lesion_mask"]
    for subject, role, split in rows:
        files = []
        for contrast in ("T1w", "FLAIR"):
            voxels = generator.random((8, 8, 8), dtype=np.float32) + 1
            files.append(write_scan(sheet.parent / f"tête {subject}, {contrast}.nii.gz", voxels))
        mask = np.zeros((8, 8, 8), np.uint8)
        mask[3:5, 3:5, 3:5] = 1
        files.append(write_scan(sheet.parent / f"{subject} mask.nii.gz", mask) if role == "patient" else "")
        lines.append(",".join([subject, role, split, *(f'"{name}"' for name in files)]))
    sheet.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, ""]).encode())
    return sheet


@pytest.fixture(scope="session")
def phantom_cohort(tmp_path_factory) -> Path:
    """Two phantom patients and a healthy head, coarse."""
    out = tmp_path_factory.mktemp("phantom") / "cohort"
    arguments = ["--threads", "1", "phantom", str(out), "--patients", "2", "--healthy", "1", "--voxel-mm", "3", "--seed", "2"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="session")
def prepared_phantom(phantom_cohort, tmp_path_factory) -> Path:
    """The prepared folder of the first phantom patient, by the command that a user would type, in a process of its own.

    Reproducible: with several ITK threads it would be another scan each time, on which a registration hits or misses a limit.
    """
    anat = phantom_cohort / "sub-p01" / "anat"
    mask = phantom_cohort / "derivatives/manual/sub-p01/anat/sub-p01_label-lesion_mask.nii.gz"
    out = tmp_path_factory.mktemp("prepared")
    scans = ["--t1w", str(anat / "sub-p01_T1w.nii.gz"), "--flair", str(anat / "sub-p01_FLAIR.nii.gz"), "--lesion-mask", str(mask)]
    settings = ["--threads", "1", "--reproducible"]
    command = [sys.executable, "-m", "lesionforge", *settings, "prepare", *scans, "--subject", "p01", "--voxel-mm", "3"]
    subprocess.run([*command, "--out", str(out)], check=True)
    return out / "sub-p01"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
