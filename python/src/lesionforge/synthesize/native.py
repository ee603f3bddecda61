"""Filled scans, levels and painted lesions on a scan's own grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from lesionforge import nets
from lesionforge.errors import InputError
from lesionforge.images import (
    Grid,
    Prepared,
    Scan,
    derivative,
    files_of_a_tool,
    find_image,
    grids_of,
    new_folder,
    read_image,
    read_json,
    read_mask,
    read_mask_on,
    read_volume,
    refuse_loss,
    resample,
    voxel_volume_mm3,
    write_json,
    write_mask,
    write_volume,
)
from lesionforge.nets.devices import find_device, on_one_device
from lesionforge.prepare.align import BACKGROUND_PERCENTILE
from lesionforge.synthesize.fill import Filling, fill_lesions
from lesionforge.synthesize.generator_folder import load_generator, read_generator_card
from lesionforge.synthesize.levels import LEVEL_COUNT, SUFFIXES, WHITE_MATTER
from lesionforge.synthesize.paint import paint_lesions
from lesionforge.synthesize.stage import images_of, level_entity, levels_of_scan, scales_of_scan

FILLED_FILES = files_of_a_tool("desc-filled_*", "desc-fill.json")
PAINTED_FILES = files_of_a_tool("label-lesion_mask.*", "desc-levels*_dseg.*", "desc-painted_*", "desc-paint.json")
PAINTED = "lesions painted by lesionforge"
# Rims of lesions are less bright than their cores.
RAMP_MM = 2.0
# A bias field is smooth; noise and what was winsorised are not.
FIELD_SIGMA_MM = 5.0
# The axes of a NIfTI image in the order that RAS has them.
RAS = nib.orientations.axcodes2ornt("RAS")


def fill_on_grid(
    image: np.ndarray, affine: np.ndarray, lesion: np.ndarray, white_matter: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, Filling]:
    """A scan [x, y, z] on its own grid with its lesions filled by `fill_lesions`, and what was filled; float32.

    Slices are the axial ones, whatever the order of the axes. Voxels outside `lesion` keep their value exactly, so that
    the volumetry of a filled scan differs by its lesions alone.
    """
    orientation = nib.io_orientation(affine)
    upright = [nib.apply_orientation(volume, orientation) for volume in (image.astype(np.float32), lesion, white_matter)]
    (filled,), filling = fill_lesions([upright[0]], upright[1], upright[2], rng)
    back = nib.apply_orientation(filled, nib.orientations.ornt_transform(RAS, orientation))
    return np.where(lesion, back, image).astype(np.float32), filling


def write_filled(prepared: Prepared, scans: dict[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """Write `out/<id>/`: each scan as given (by contrast) with its lesions filled on its own grid; returns the JSON.

    Lesions are those of the mask that the scan was prepared with, else the hyperintensities of its white matter off the cortex.
    Integer scans stay integer; header, sform and qform are those of the scan.
    """
    record: dict[str, Any] = {"id": prepared.scan_id, "seed": seed, "versions": nets.versions()}
    record["filled"] = "lesion mask" if prepared.lesion else "hyperintensities of white matter"
    scan = prepared.read()
    levels = None if prepared.lesion else levels_of_scan(prepared, scan)[0]["flair"]
    # One for all, else scans on one grid would have the same noise.
    rng = np.random.default_rng(seed)
    with new_folder(out / prepared.scan_id, prepared.folder, *scans.values(), own=FILLED_FILES) as folder:
        for space, path in scans.items():
            entities = f"space-{space}_res-native"
            like = read_image(path)
            data, affine = read_volume(path)
            tissues, _ = read_volume(find_image(prepared.folder, f"{entities}_dseg.nii.gz"))
            if levels is None:
                lesion = read_mask(find_image(prepared.folder, f"{entities}_label-lesion_mask.nii.gz"))[0]
            else:
                lesion = levels_on(levels, scan.affine, prepared, space, (data.shape, affine)) > 0
            filled, filling = fill_on_grid(data, affine, lesion, tissues == WHITE_MATTER, rng)
            record[space] = vars(filling) | {"voxels": int(lesion.sum())}
            name = derivative(prepared.scan_id, entities, f"desc-filled_{space}")
            sidecar = {"Description": f"{space} as given, its lesions filled with noise like the white matter around them"}
            write_volume(as_stored(filled, like), affine, folder / name, like, sidecar)
        write_json(record, folder / derivative(prepared.scan_id, "desc-fill", extension=".json"))
    return record


def write_native_levels(prepared: Prepared, levels: dict[str, np.ndarray], scans: dict[str, Path], folder: Path) -> None:
    """Write the levels by contrast, which lie on the working grid, on the grid of each scan as given."""
    affine = read_image(prepared.t1w).affine
    meaning = {str(level): f"level {level} of {LEVEL_COUNT}" for level in range(1, LEVEL_COUNT + 1)}
    for space, path in scans.items():
        like = read_image(path)
        for contrast, level in levels.items():
            native = levels_on(level, affine, prepared, space, (like.shape, like.affine))
            description = f"intensity levels of the white matter's hyperintensities in the {SUFFIXES[contrast]}"
            name = derivative(prepared.scan_id, f"space-{space}_res-native", level_entity(contrast))
            write_volume(native, like.affine, folder / name, like, {"Description": description, "LabelMap": meaning})


def levels_of_mask(lesion: np.ndarray, level: int, voxel_mm: float) -> np.ndarray:
    """FLAIR levels of lesions without a donor, uint8 [x, y, z]: `level` (1..12) inside, at least 1, rising over RAMP_MM."""
    depth_mm = ndimage.distance_transform_edt(lesion, sampling=voxel_mm)
    ramp = np.rint(level * np.minimum(depth_mm / RAMP_MM, 1)).clip(1)
    return np.where(lesion, ramp, 0).astype(np.uint8)


def mask_on_working_grid(path: Path, prepared: Prepared, scan: Scan, scans: dict[str, Path]) -> np.ndarray:
    """A user's mask, which lies on the grid of one of the scans as given, on the working grid, in the brain; bool.

    Raises InputError where it lies on none or leaves nothing in the brain.
    """
    mask, space = read_mask_on(path, grids_of(scans))
    to_given = np.linalg.inv(prepared.given_to_t1w(space))
    inside: np.ndarray = (resample(*mask, (scan.t1w.shape, scan.affine), to_given) >= 0.5) & scan.brain
    if not inside.any():
        raise InputError(f"{path}: has no voxel in the brain; check that it belongs to this scan")
    return inside


def add_change(given: np.ndarray, affine: np.ndarray, change: np.ndarray, prepared: Prepared, space: str) -> np.ndarray:
    """A scan as given plus what changed in its normalised image on the working grid, in the scan's own intensities; float32.

    The scan's units and its bias field are undone: both are known from the scan as given against the prepared one. Where
    nothing changed, the scan is returned bit for bit.
    """
    prepared_path = prepared.images[space]
    normal, grid_affine = read_volume(prepared_path)
    units = read_json(Path(str(prepared_path).removesuffix(".nii.gz") + ".json"))["StandardUnits"]
    brain = read_mask(prepared.brain)[0]
    to_t1w = prepared.given_to_t1w(space)
    raw = resample(given, affine, (normal.shape, grid_affine), np.linalg.inv(to_t1w))
    raw -= np.percentile(given, BACKGROUND_PERCENTILE)
    corrected = normal * units["scale"] + units["centre"]
    sigma = FIELD_SIGMA_MM / float(grid_affine[0, 0])
    smooth_raw, smooth_corrected = (ndimage.gaussian_filter(np.where(brain, image, 0), sigma) for image in (raw, corrected))
    field = np.divide(smooth_raw, smooth_corrected, out=np.ones_like(smooth_raw), where=brain & (smooth_corrected > 0))
    added = resample(change * units["scale"] * field, grid_affine, (given.shape, affine), to_t1w)
    return np.where(added == 0, given, given + added).astype(np.float32)


def write_painted_native(
    prepared: Prepared, scans: dict[str, Path], mask: Path, level: int, generator: Path, out: Path
) -> dict[str, Any]:
    """Paint the lesions of a mask onto a scan and write `out/<id>/`; returns the JSON.

    The painted contrasts, the lesions and their levels on the working grid, and the painted scans and the lesions on
    the grids of the scans as given, in their own intensities.
    """
    card, config = read_generator_card(generator, tuple(name.lower() for name in scans))
    refuse_loss(out / prepared.scan_id, prepared.folder, *scans.values(), mask, generator, own=PAINTED_FILES)
    nets.set_up(card["seed"])
    scan = prepared.read()
    lesion = mask_on_working_grid(mask, prepared, scan, scans)
    in_flair = levels_of_mask(lesion, level, float(scan.affine[0, 0]))
    typical = {name: np.array(levels, np.uint8)[in_flair] for name, levels in card["typical_levels"].items()}
    levels = {name: in_flair if name == "flair" else typical[name] for name in config.contrasts}
    shown, scales = images_of(scan, config.contrasts), scales_of_scan(prepared, scan)
    device = find_device("auto")
    with on_one_device(device):
        network = load_generator(generator, config)
        device.say()
        painted = paint_lesions(network, config, list(shown.values()), scan.brain, lesion, levels, scales)
    volume_ml = np.count_nonzero(lesion) * voxel_volume_mm3(scan.affine) / 1000
    record = {
        "id": prepared.scan_id,
        "level": level,
        "lesion_volume_ml": volume_ml,
        "generator_checksum": card["checksums"]["generator.keras"],
        "versions": nets.versions(),
    }
    with new_folder(out / prepared.scan_id, own=PAINTED_FILES) as folder:

        def path(*parts: str, extension: str = ".nii.gz") -> Path:
            return folder / derivative(prepared.scan_id, *parts, extension=extension)

        write_mask(lesion, scan.affine, path(prepared.grid, "label-lesion_mask"), PAINTED)
        for name, painted_levels in levels.items():
            sidecar = {"Description": f"levels painted in the {SUFFIXES[name]}"}
            write_volume(painted_levels, scan.affine, path(prepared.grid, level_entity(name)), sidecar=sidecar)
        for (name, before), image in zip(shown.items(), painted, strict=True):
            space = SUFFIXES[name]
            entities = f"space-{space}_res-native"
            sidecar = {"Description": f"{space} with painted lesions"}
            write_volume(image, scan.affine, path(prepared.grid, f"desc-painted_{space}"), sidecar=sidecar)
            like = read_image(scans[space])
            data, affine = read_volume(scans[space])
            native = add_change(data, affine, image - before, prepared, space)
            write_volume(as_stored(native, like), affine, path(entities, f"desc-painted_{space}"), like, sidecar)
            there = resample(lesion, scan.affine, (data.shape, affine), prepared.given_to_t1w(space)) >= 0.5
            write_mask(there, affine, path(entities, "label-lesion_mask"), PAINTED, like)
        write_json(record, path("desc-paint", extension=".json"))
    return record


def levels_on(levels: np.ndarray, affine: np.ndarray, prepared: Prepared, space: str, grid: Grid) -> np.ndarray:
    """Levels on the working grid on the grid of a scan as given, by nearest neighbour; uint8 [x, y, z]."""
    return resample(levels, affine, grid, prepared.given_to_t1w(space), nearest=True).astype(np.uint8)


def as_stored(data: np.ndarray, like: nib.Nifti1Image) -> np.ndarray:
    """Data rounded to the integer type of an image that holds unscaled integers, within its range; as it is for any other."""
    kind = like.get_data_dtype()
    unscaled = (getattr(like.dataobj, "slope", 1), getattr(like.dataobj, "inter", 0)) == (1, 0)
    if kind.kind not in "iu" or not unscaled:
        return data
    # In float64, as float32 does not hold the ends of 32-bit integers.
    return np.rint(data.astype(np.float64)).clip(np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)
