"""Scans that are made of others: what they are made of must lie on one grid, and their folders look like prepared ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lesionforge.errors import InputError
from lesionforge.images.files import read_volume, write_json, write_mask, write_volume
from lesionforge.images.geometry import same_grid
from lesionforge.images.names import derivative
from lesionforge.images.prepared import Scan


def read_on_grid(path: Path, scan: Scan, remedy: str) -> np.ndarray:
    """Read a volume that must lie on a scan's grid, else raise InputError that names the command to run again."""
    volume, affine = read_volume(path)
    if not same_grid(volume.shape, affine, scan.t1w.shape, scan.affine):
        raise InputError(f"{path}: lies on another grid than the prepared scan; run lesionforge {remedy} again")
    return volume


def write_made_scan(
    folder: Path,
    scan_id: str,
    grid: str,
    *,
    images: Mapping[str, np.ndarray],
    brain: np.ndarray,
    tissues: np.ndarray,
    lesion: np.ndarray,
    affine: np.ndarray,
    descriptions: tuple[str, str],
    provenance: Mapping[str, Any],
    draw: Any,
) -> None:
    """Write the files of a prepared folder that was made of other scans, with its provenance and its draw, into `folder`.

    Volumes are [x, y, z] on the grid with this affine, whose entities are `grid`: normalised `images` by contrast (T1w, FLAIR
    and those of `images.CONTRASTS` that may follow), `brain` and `lesion` bool, `tissues` 0 to 3. `descriptions` say in words
    whose brain and which lesions these are.
    """
    for name, image in images.items():
        write_volume(image.astype(np.float32), affine, folder / derivative(scan_id, grid, f"desc-preproc_{name}"))
    write_mask(brain, affine, folder / derivative(scan_id, grid, "desc-brain_mask"), descriptions[0])
    write_volume(tissues.astype(np.uint8), affine, folder / derivative(scan_id, grid, "dseg"))
    write_mask(lesion, affine, folder / derivative(scan_id, grid, "label-lesion_mask"), descriptions[1])
    write_json(provenance, folder / derivative(scan_id, "desc-provenance", extension=".json"))
    write_json(draw, folder / derivative(scan_id, "desc-draw", extension=".json"))
