"""From a pair folder to a transplant folder: the draw of a synthetic scan, applied to its canvas."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from lesionforge import __version__, nets
from lesionforge.errors import InputError
from lesionforge.images import (
    Prepared,
    Scan,
    derivative,
    find_image,
    new_folder,
    places,
    read_json,
    read_on_grid,
    read_record,
    voxel_volume_mm3,
    write_json,
    write_mask,
    write_volume,
)
from lesionforge.synthesize.levels import ALWAYS, SUFFIXES
from lesionforge.synthesize.library import (
    TrainingLesion,
    draw_profiles,
    hyperintensities,
    lesion_statistics,
    statistics_from_json,
    statistics_json,
)
from lesionforge.synthesize.midsagittal import midsagittal_reflection
from lesionforge.synthesize.sampler import Candidate, Draw, apply_draw, draw_lesions
from lesionforge.synthesize.stage import Levels, images_of, level_entity, shared_contrasts
from lesionforge.synthesize.transplant import Room, room_for_lesions, transplant_lesions

STATISTICS = "lesion_statistics.json"


def write_statistics(patients: Sequence[tuple[Prepared, Levels]], out: Path) -> list[TrainingLesion]:
    """Write `out`/lesion_statistics.json: size, place and profile of every lesion of these training patients; returns them.

    A patient without a lesion mask gives its hyperintensities. Raises InputError when there is no lesion at all, and when the
    patients' contrasts differ.
    """
    contrasts = shared_contrasts([levels for _, levels in patients])
    found = []
    for prepared, levels in patients:
        scan = prepared.read()
        voxel_mm = float(np.cbrt(voxel_volume_mm3(scan.affine)))
        lesion = scan.lesion & scan.brain
        if prepared.lesion is None:
            lesion = hyperintensities(levels.read(scan)["flair"], voxel_mm)
        units = {name: levels.scales[name].units(image) for name, image in images_of(scan, contrasts).items()}
        found += lesion_statistics(prepared.scan_id, units, lesion, scan.tissues, scan.brain, voxel_mm)
    if not found:
        raise InputError(f"{patients[0][0].folder.parent}: no training patient has a lesion; give patients with lesions")
    with new_folder(out, own=(STATISTICS,)) as folder:
        write_json({"lesions": statistics_json(found), "versions": nets.versions()}, folder / STATISTICS)
    return found


def read_statistics(folder: Path) -> list[TrainingLesion]:
    """The lesions of a folder that `write_statistics` wrote; raises InputError when it is none."""
    content = read_json(folder / STATISTICS)
    try:
        return statistics_from_json(content["lesions"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / STATISTICS}: is none of ours; run lesionforge synthesize statistics again") from error


def read_draw(path: Path) -> Draw:
    """A saved draw; raises InputError when the file is none."""
    try:
        return Draw.from_json(read_json(path))
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: is no draw of a synthetic scan; give the desc-draw.json of one") from error


def write_transplant(
    synthetic_id: str,
    pair: Path,
    canvas: Prepared,
    brightness: Levels | Sequence[TrainingLesion],
    out: Path,
    *,
    seed: int,
    load_ml: float | None = None,
    draw: Draw | None = None,
) -> dict[str, Any]:
    """Write `out/<synthetic id>/`: lesion mask and levels on the canvas grid, the draw, and what became of each lesion.

    How bright the lesions are is said by the donor's levels folder, or for masks of a library by the training patients'
    lesions, which a given draw holds already. The draw follows from seed and id, unless one is given. Lesions get the contrasts
    that say how bright they are, or those of a given draw. Returns the JSON of the transplant. Raises InputError when the folders
    or the draw belong to other scans, lack a contrast or lie on different grids, or when there is no lesion to place or no white
    matter to place it in.
    """
    record = read_record(find_image(pair, "desc-pair.json"), "donor", "canvas", "lesions_touching_grey_matter")
    _refuse_strangers(record, pair, canvas, brightness, draw)
    scan = canvas.read()
    voxel_mm = float(np.cbrt(voxel_volume_mm3(scan.affine)))
    numbers = read_on_grid(find_image(pair, "label-lesion_dseg.nii.gz"), scan, "register pair").astype(np.uint16)
    room = room_for_lesions(scan.tissues, scan.lesion, scan.brain)
    _refuse_nothing(numbers, room, pair, canvas)
    if draw is not None:
        contrasts = draw.contrasts
    elif isinstance(brightness, Levels):
        contrasts = brightness.contrasts
    else:
        contrasts = tuple(brightness[0].profiles) if brightness else ALWAYS
    warped = None
    if isinstance(brightness, Levels):
        brightness.refuse_lacking(contrasts)
        warped = {
            name: brightness.scales[name].units(
                read_on_grid(find_image(pair, f"desc-preproc_{SUFFIXES[name]}.nii.gz"), scan, "register pair")
            )
            for name in contrasts
        }
    if draw is None:
        # The id is part of the seed, so that a scan stays the same whatever others are asked for.
        rng = np.random.default_rng([seed, zlib.crc32(synthetic_id.encode())])
        profiles = None if isinstance(brightness, Levels) else brightness
        chosen = draw_lesions(_candidates(numbers, scan, profiles, voxel_mm, rng), load_ml, rng, contrasts)
        draw = Draw(synthetic_id, record["donor"], canvas.scan_id, seed, load_ml, __version__, chosen)
    draw = replace(draw, id=synthetic_id)
    reflection = midsagittal_reflection(scan.t1w, scan.brain, voxel_mm)
    touching = frozenset(record["lesions_touching_grey_matter"])
    lesions = apply_draw(draw.lesions, numbers, warped, touching, reflection, voxel_mm, contrasts)
    result = transplant_lesions(lesions, room, voxel_mm, len(contrasts))
    content = {
        "id": synthetic_id,
        "donor": draw.donor,
        "canvas": canvas.scan_id,
        "seed": draw.seed,
        "load_asked_ml": draw.load_ml,
        "lesion_volume_ml": np.count_nonzero(result.lesion) * voxel_volume_mm3(scan.affine) / 1000,
        "versions": nets.versions(),
    } | result.summary()
    if isinstance(brightness, Levels):
        content["donor_scales"] = {name: asdict(scale) for name, scale in brightness.scales.items()}
    source = brightness.folder if isinstance(brightness, Levels) else None
    with new_folder(out / synthetic_id, pair, canvas.folder, source) as folder:
        stem = (synthetic_id, canvas.grid)
        description = f"Lesions of {draw.donor} transplanted into the white matter of {canvas.scan_id}"
        write_mask(result.lesion, scan.affine, folder / derivative(*stem, "label-lesion_mask"), description)
        for name, levels in zip(contrasts, result.levels, strict=True):
            write_volume(levels, scan.affine, folder / derivative(*stem, level_entity(name)))
        write_json(content, folder / derivative(synthetic_id, "desc-transplant", extension=".json"))
        write_json(asdict(draw), folder / derivative(synthetic_id, "desc-draw", extension=".json"))
    return content


def _refuse_strangers(
    record: dict[str, Any], pair: Path, canvas: Prepared, brightness: Levels | Sequence[TrainingLesion], draw: Draw | None
) -> None:
    """Raise InputError when a folder or the draw belongs to another donor or canvas than the pair."""
    given = [("canvas", canvas.scan_id, str(canvas.folder))]
    if isinstance(brightness, Levels):
        given.append(("donor", brightness.scan_id, str(brightness.folder)))
    elif record.get("method") != "library":
        raise InputError(f"{pair}: its lesions come from a scan, not from a library; give the donor's levels folder")
    if draw is not None:
        given += [("canvas", draw.canvas, f"the draw of {draw.id}"), ("donor", draw.donor, f"the draw of {draw.id}")]
    for name, scan_id, where in given:
        if record.get(name) != scan_id:
            raise InputError(f"{where}: is {scan_id}, but {pair} was registered with {name} {record.get(name)}; give its own")


def _refuse_nothing(numbers: np.ndarray, room: Room, pair: Path, canvas: Prepared) -> None:
    """Raise InputError when the canvas has no white matter, or none of the donor's lesions came onto it."""
    if not room.white.any():
        raise InputError(f"{canvas.tissues}: holds no white matter in the brain; check the brain mask and prepare the scan again")
    if not numbers.any():
        raise InputError(f"{pair}: none of the donor's lesions lies in the brain of {canvas.scan_id}; give another donor")


def _candidates(
    numbers: np.ndarray, scan: Scan, profiles: Sequence[TrainingLesion] | None, voxel_mm: float, rng: np.random.Generator
) -> list[Candidate]:
    """The warped lesions that may be drawn; with `profiles`, each has those of a training lesion like it."""
    volumes = np.bincount(numbers.ravel()) * voxel_mm**3
    found = [(int(number), float(volumes[number])) for number in np.flatnonzero(volumes) if number]
    if profiles is None:
        return [Candidate(number, volume) for number, volume in found]
    where = places(numbers, scan.tissues, scan.brain, voxel_mm)
    drawn = draw_profiles([(volume, where[number]) for number, volume in found], profiles, rng)
    return [Candidate(number, volume, of_one) for (number, volume), of_one in zip(found, drawn, strict=True)]
