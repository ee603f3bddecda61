"""One prepared folder in, one result folder out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lesionforge import nets
from lesionforge.cascade.card import contrasts_of, read_cascade_card
from lesionforge.cascade.settings import CascadeConfig
from lesionforge.errors import InputError
from lesionforge.images import (
    Prepared,
    derivative,
    files_of_a_tool,
    find_image,
    find_images,
    new_folder,
    read_image,
    refuse_loss,
    resample,
    write_json,
    write_mask,
    write_tsv,
    write_volume,
)
from lesionforge.images.geometry import voxel_side_mm
from lesionforge.images.prepared import native_brain_mask_name
from lesionforge.nets.devices import find_device, on_one_device
from lesionforge.segment.cascade import found_lesions, lesion_probability
from lesionforge.segment.lesions import (
    lesion_columns,
    lesion_table,
    native_volume,
    number_lesions,
    numbers_on,
    totals,
    volumes_mm3,
)
from lesionforge.train.loading import load_judges

SEGMENT_FILES = files_of_a_tool("label-lesion_*", "desc-lesions.*", "desc-segment.json")
MASK_MEANING = "lesions found by the cascade"
NUMBERS_SIDECAR = {"Description": "lesions found by the cascade, each with its number in desc-lesions.tsv"}
PROBABILITY_SIDECAR = {"Description": "probability of lesion by the cascade, 0 to 1"}


@dataclass(frozen=True)
class Cascade:
    """A model folder whose card was checked: where it lies, voxel size, contrasts, the parameters to use it with, checksums."""

    folder: Path
    voxel_mm: float
    contrasts: tuple[str, ...]
    config: CascadeConfig
    checksums: dict[str, str]

    @classmethod
    def open(cls, folder: Path, lesion_threshold: float | None = None, min_volume_mm3: float | None = None) -> Cascade:
        """Read the card; the two numbers replace the card's when given, a threshold leaves no growth.

        Raises InputError as `read_cascade_card` does.
        """
        card, config, voxel_mm = read_cascade_card(folder)
        if lesion_threshold is not None:
            config = replace(config, lesion_threshold=lesion_threshold, lowest_threshold=None, growth_mm=0.0)
        if min_volume_mm3 is not None:
            config = replace(config, min_volume_mm3=min_volume_mm3)
        return cls(folder, voxel_mm, contrasts_of(card), config, card["checksums"])


def write_native(
    prepared: Prepared,
    space: str,
    to_t1w: np.ndarray,
    probability: np.ndarray,
    numbers: np.ndarray,
    affine: np.ndarray,
    folder: Path,
) -> np.ndarray:
    """Write what was found on the native grid of one contrast, such as "T1w", with that scan's own header.

    Probability and numbered lesions [x, y, z] lie on the working grid with `affine`, to whose points the 4 x 4 matrix `to_t1w`
    leads. Returns the volume in mm³ that each lesion has on the native grid.
    """
    like = read_image(find_image(prepared.folder, native_brain_mask_name(space)))
    grid = (like.shape, like.affine)
    name = (prepared.scan_id, f"space-{space}_res-native")
    there = resample(probability, affine, grid, to_t1w)
    write_volume(there, like.affine, folder / derivative(*name, "label-lesion_probseg"), like, PROBABILITY_SIDECAR)
    found = resample(numbers > 0, affine, grid, to_t1w) >= 0.5
    write_mask(found, like.affine, folder / derivative(*name, "label-lesion_mask"), MASK_MEANING, like)
    own = numbers_on(numbers, affine, grid, to_t1w, found)
    write_volume(own, like.affine, folder / derivative(*name, "label-lesion_dseg"), like, NUMBERS_SIDECAR)
    return volumes_mm3(own, int(numbers.max(initial=0)), like.affine)


def segment_scan(prepared_folder: Path, cascade: Cascade, out: Path, model_name: str | None = None) -> dict[str, object]:
    """Segment one prepared scan into `out/<id>/`; returns the content of `desc-segment.json`.

    There the model is called `model_name`, without it as its folder.
    Every file is written even when no lesion is found. A synthetic scan has no native grids. Raises InputError when the
    folder is incomplete, lacks a contrast of the model or was prepared at another voxel size than the model's.
    """
    prepared = Prepared.open(prepared_folder)
    refuse_loss(out / prepared.scan_id, prepared_folder, cascade.folder, own=SEGMENT_FILES)
    prepared.refuse_lacking(cascade.contrasts)
    scan = prepared.unmarked().read()
    voxel_mm = voxel_side_mm(scan.affine)
    if abs(voxel_mm - cascade.voxel_mm) > 0.01:
        raise InputError(
            f"{prepared_folder}: has voxels of {voxel_mm:g} mm, the model was trained at {cascade.voxel_mm:g} mm; "
            f"prepare it with --voxel-mm {cascade.voxel_mm:g}"
        )
    config = cascade.config
    # What cannot be read is found before the networks run.
    in_template = prepared.way_to_template()
    spaces = prepared.contrasts if find_images(prepared.folder, native_brain_mask_name("*")) else ()
    to_t1w = {space: prepared.given_to_t1w(space) for space in spaces}
    images = list(scan.images(cascade.contrasts).values())
    device = find_device("auto")
    with on_one_device(device):
        models = load_judges(cascade.folder, config, cascade.contrasts)
        device.say()
        probability = lesion_probability(models, images, scan.brain, config, voxel_mm)
    mask, threshold = found_lesions(probability, scan, config)
    numbers = number_lesions(mask)
    lesions = lesion_table(numbers, scan, in_template)
    with new_folder(out / prepared.scan_id, own=SEGMENT_FILES) as folder:
        name = (prepared.scan_id, prepared.grid)
        target = folder / derivative(*name, "label-lesion_probseg")
        write_volume(probability, scan.affine, target, sidecar=PROBABILITY_SIDECAR)
        write_mask(mask, scan.affine, folder / derivative(*name, "label-lesion_mask"), MASK_MEANING)
        target = folder / derivative(*name, "label-lesion_dseg")
        write_volume(numbers, scan.affine, target, sidecar=NUMBERS_SIDECAR)
        for space, matrix in to_t1w.items():
            volumes = write_native(prepared, space, matrix, probability, numbers, scan.affine, folder)
            lesions[native_volume(space)] = volumes
        summary = totals(lesions) | {
            "id": prepared.scan_id,
            "candidate_depth_mm": config.candidate_depth_mm,
            "candidate_flair_z": config.candidate_flair_z,
            "cnn1_threshold": config.cnn1_threshold,
            "mirrored": config.mirrored,
            "lesion_threshold": threshold,
            "lowest_threshold": config.lowest_threshold,
            "load_share": config.load_share,
            "min_volume_mm3": config.min_volume_mm3,
            "growth_mm": config.growth_mm,
            "voxel_mm": voxel_mm,
            "model": model_name or cascade.folder.resolve().name,
            "model_checksums": cascade.checksums,
            "versions": nets.versions(),
        }
        table = folder / derivative(prepared.scan_id, "desc-lesions", extension=".tsv")
        write_tsv(lesions.round(3), table, lesion_columns(prepared.contrasts))
        write_json(summary, folder / derivative(prepared.scan_id, "desc-segment", extension=".json"))
    return summary


def in_words(summary: dict[str, object]) -> str:
    """One line on the outcome; an empty mask is said to be one."""
    if not summary["lesion_count"]:
        return f"{summary['id']}: no lesion found, the mask is empty"
    return f"{summary['id']}: {summary['lesion_count']} lesions, {summary['volume_ml']:.2f} ml"
