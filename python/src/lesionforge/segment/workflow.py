"""One prepared folder in, one result folder out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lesionforge import nets
from lesionforge.errors import InputError
from lesionforge.images import (
    Prepared,
    derivative,
    find_image,
    find_images,
    lesion_table,
    new_folder,
    read_image,
    refuse_input_as_output,
    resample,
    voxel_volume_mm3,
    write_json,
    write_mask,
    write_tsv,
    write_volume,
)
from lesionforge.images.lesions import LESION_TABLE_COLUMNS
from lesionforge.segment.cascade import lesion_mask, lesion_probability
from lesionforge.train.model_folder import read_cascade_card
from lesionforge.train.network import NETWORKS, CascadeConfig

MASK_MEANING = "lesions found by the cascade"
PROBABILITY_SIDECAR = {"Description": "probability of lesion by the cascade, 0 to 1"}


@dataclass(frozen=True)
class Cascade:
    """A model folder whose card was checked: where it lies, its voxel size, and the parameters to use it with."""

    folder: Path
    voxel_mm: float
    config: CascadeConfig

    @classmethod
    def open(cls, folder: Path, lesion_threshold: float | None = None, min_volume_mm3: float | None = None) -> Cascade:
        """Read the card; the two numbers replace the card's when given. Raises InputError as `read_cascade_card` does."""
        _card, config, voxel_mm = read_cascade_card(folder)
        if lesion_threshold is not None:
            config = replace(config, lesion_threshold=lesion_threshold)
        if min_volume_mm3 is not None:
            config = replace(config, min_volume_mm3=min_volume_mm3)
        return cls(folder, voxel_mm, config)


def write_native(
    prepared: Prepared, space: str, probability: np.ndarray, mask: np.ndarray, affine: np.ndarray, folder: Path
) -> None:
    """Write probability and mask on the native grid of one contrast ("T1w" or "FLAIR"), with that scan's own header."""
    like = read_image(find_image(prepared.folder, f"space-{space}_res-native_desc-brain_mask.nii.gz"))
    to_t1w = prepared.given_to_t1w(space)
    grid = (like.shape, like.affine)
    name = (prepared.scan_id, f"space-{space}_res-native")
    there = resample(probability, affine, grid, to_t1w)
    write_volume(there, like.affine, folder / derivative(*name, "label-lesion_probseg"), like, PROBABILITY_SIDECAR)
    share = resample(mask, affine, grid, to_t1w)
    write_mask(share >= 0.5, like.affine, folder / derivative(*name, "label-lesion_mask"), MASK_MEANING, like)


def segment_scan(prepared_folder: Path, cascade: Cascade, out: Path) -> dict[str, object]:
    """Segment one prepared scan into `out/<id>/`; returns the content of `desc-segment.json`.

    Every file is written even when no lesion is found. A synthetic scan has no native grids. Raises InputError when the
    folder is incomplete or was prepared at another voxel size than the model's.
    """
    refuse_input_as_output(out, prepared_folder)
    prepared = Prepared.open(prepared_folder)
    scan = prepared.read()
    voxel_mm = float(np.linalg.norm(scan.affine[:3, 0]))
    if abs(voxel_mm - cascade.voxel_mm) > 0.01:
        raise InputError(
            f"{prepared_folder}: has voxels of {voxel_mm:g} mm, the model was trained at {cascade.voxel_mm:g} mm; "
            f"prepare it with --voxel-mm {cascade.voxel_mm:g}"
        )
    config = cascade.config
    voxel_mm3 = voxel_volume_mm3(scan.affine)
    models = {name: nets.load_model(cascade.folder, name) for name in NETWORKS}
    probability = lesion_probability(models, scan.t1w, scan.flair, scan.brain, config)
    mask = lesion_mask(probability, voxel_mm3, config.lesion_threshold, config.min_volume_mm3)
    lesions = lesion_table(mask, scan.affine)
    summary = {
        "id": prepared.scan_id,
        "lesion_count": len(lesions),
        "volume_ml": float(mask.sum() * voxel_mm3 / 1000),
        "candidate_flair_z": config.candidate_flair_z,
        "cnn1_threshold": config.cnn1_threshold,
        "lesion_threshold": config.lesion_threshold,
        "min_volume_mm3": config.min_volume_mm3,
        "voxel_mm": voxel_mm,
        "model": cascade.folder.name,
        "model_checksums": nets.read_card(cascade.folder, "cascade")["checksums"],
        "versions": nets.versions(),
    }
    with new_folder(out / prepared.scan_id) as folder:
        name = (prepared.scan_id, prepared.grid)
        target = folder / derivative(*name, "label-lesion_probseg")
        write_volume(probability, scan.affine, target, sidecar=PROBABILITY_SIDECAR)
        write_mask(mask, scan.affine, folder / derivative(*name, "label-lesion_mask"), MASK_MEANING)
        if find_images(prepared.folder, "res-native_desc-brain_mask.nii.gz"):
            for space in ("T1w", "FLAIR"):
                write_native(prepared, space, probability, mask, scan.affine, folder)
        write_tsv(lesions, folder / derivative(prepared.scan_id, "desc-lesions", extension=".tsv"), LESION_TABLE_COLUMNS)
        write_json(summary, folder / derivative(prepared.scan_id, "desc-segment", extension=".json"))
    return summary


def in_words(summary: dict[str, object]) -> str:
    """One line on the outcome; an empty mask is said to be one."""
    if not summary["lesion_count"]:
        return f"{summary['id']}: no lesion found, the mask is empty"
    return f"{summary['id']}: {summary['lesion_count']} lesions, {summary['volume_ml']:.2f} ml"
