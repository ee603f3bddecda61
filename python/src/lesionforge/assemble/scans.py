"""The scans of the arms `classical` and `mix`, from folders to folders."""

from __future__ import annotations

import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lesionforge import __version__, nets
from lesionforge.assemble.classical import apply_classical, draw_classical
from lesionforge.assemble.mix import carved_region, draw_mix, paste
from lesionforge.errors import InputError
from lesionforge.images import (
    Prepared,
    find_image,
    label_lesions,
    new_folder,
    read_on_grid,
    read_record,
    refuse_loss,
    voxel_volume_mm3,
    write_made_scan,
)
from lesionforge.images.prepared import WM


def rng_of(seed: int, scan_id: str) -> np.random.Generator:
    """The id is part of the seed, so that a scan stays the same whatever others are asked for."""
    return np.random.default_rng([seed, zlib.crc32(scan_id.encode())])


def write_classical(scan_id: str, prepared: Prepared, out: Path, seed: int) -> dict[str, Any]:
    """Write `out/<id>/`, an augmented copy of an annotated scan, as a prepared folder; returns its provenance.

    Raises InputError when the scan has no lesion mask, an empty brain, or a contrast with one value in the whole brain.
    """
    if prepared.lesion is None:
        raise InputError(f"{prepared.folder}: has no lesion mask; give an annotated scan")
    refuse_loss(out / scan_id, prepared.folder)
    scan = prepared.read()
    if not scan.brain.any():
        raise InputError(f"{prepared.brain}: is empty; prepare the scan again")
    if flat := [name for name, image in scan.images().items() if not np.ptp(image[scan.brain])]:
        raise InputError(f"{prepared.folder}: its {flat[0]} has one value in the whole brain; prepare the scan again")
    voxel_ml = voxel_volume_mm3(scan.affine) / 1000
    draw = draw_classical(scan_id, prepared.scan_id, scan.contrasts, seed, __version__, rng_of(seed, scan_id))
    copy = apply_classical(draw, scan, float(np.cbrt(1000 * voxel_ml)))
    provenance = {
        "id": scan_id,
        "method": "classical augmentation",
        "donor": prepared.scan_id,
        "canvas": prepared.scan_id,
        "synthetic": True,
        "seed": seed,
        "parameters": asdict(draw),
        "lesion_volume_ml": np.count_nonzero(copy.lesion) * voxel_ml,
        "source_lesion_volume_ml": np.count_nonzero(scan.lesion) * voxel_ml,
        "lesions": label_lesions(copy.lesion)[1],
        "source_lesions": label_lesions(scan.lesion)[1],
        "versions": nets.versions(),
    }
    with new_folder(out / scan_id) as folder:
        write_made_scan(
            folder,
            scan_id,
            prepared.grid,
            images=copy.images(),
            brain=copy.brain,
            tissues=copy.tissues,
            lesion=copy.lesion,
            affine=scan.affine,
            descriptions=(f"Brain of {prepared.scan_id}, moved", f"Lesions of {prepared.scan_id}, moved"),
            provenance=provenance,
            draw=asdict(draw),
        )
    return provenance


def write_mix(
    scan_id: str, pair: Path, donor: Prepared, canvas: Prepared, canvas_levels: Path | None, out: Path, seed: int
) -> dict[str, Any]:
    """Write `out/<id>/`, a scan with a region of another pasted into it, as a prepared folder; returns its provenance.

    The recipient is the canvas with its lesions and their labels or, without a lesion mask, its filled images of
    `canvas_levels`, if there are any (a healthy scan has none). Raises InputError when donor and canvas are one scan, when the
    folders do not belong together, when the donor lacks a contrast of the canvas, has no lesion mask or none of its lesions
    comes onto the canvas.
    """
    record = _read_pair(pair, donor, canvas)
    donor.refuse_lacking(canvas.contrasts)
    filled = canvas_levels if canvas.lesion is None else None
    fill_seed = _read_fill_seed(filled, canvas) if filled else None
    refuse_loss(out / scan_id, pair, donor.folder, canvas.folder, canvas_levels)
    scan = canvas.read()
    images = scan.images()
    carved = {name: read_on_grid(find_image(pair, f"desc-preproc_{name}.nii.gz"), scan, "register pair") for name in images}
    if filled:
        paths = {name: find_image(filled, f"desc-filled_{name}.nii.gz") for name in images}
        images = {name: read_on_grid(path, scan, "synthesize levels") for name, path in paths.items()}
    # Where all its contrasts are 0 the donor has no brain, and nothing to paste.
    allowed = scan.brain & np.any([image != 0 for image in carved.values()], axis=0)
    lesion = (read_on_grid(find_image(pair, "label-lesion_dseg.nii.gz"), scan, "register pair") > 0) & allowed
    if not lesion.any():
        raise InputError(f"{pair}: none of the donor's lesions lies in the brain of {canvas.scan_id}; give another donor")
    voxel_ml = voxel_volume_mm3(scan.affine) / 1000
    draw = draw_mix(scan_id, donor.scan_id, canvas.scan_id, seed, __version__, rng_of(seed, scan_id))
    region = carved_region(lesion, allowed, draw.reach, float(np.cbrt(1000 * voxel_ml)))
    mixed, label = paste(region, (carved, lesion), (images, scan.lesion))
    provenance = {
        "id": scan_id,
        "method": "CarveMix",
        "donor": donor.scan_id,
        "canvas": canvas.scan_id,
        "synthetic": True,
        "seed": seed,
        "parameters": asdict(draw),
        "registration": record["method"],
        "canvas_filled": filled is not None,
        "canvas_fill_seed": fill_seed,
        "carved_volume_ml": np.count_nonzero(region) * voxel_ml,
        "pasted_lesion_volume_ml": np.count_nonzero(region & lesion) * voxel_ml,
        "lesion_volume_ml": np.count_nonzero(label) * voxel_ml,
        "versions": nets.versions(),
    }
    with new_folder(out / scan_id) as folder:
        write_made_scan(
            folder,
            scan_id,
            canvas.grid,
            images=mixed,
            brain=scan.brain,
            # The tissues of the donor are not on the canvas' grid; what is known is that lesions count as white matter.
            tissues=np.where(label, WM, scan.tissues),
            lesion=label,
            affine=scan.affine,
            descriptions=(
                f"Brain of {canvas.scan_id}",
                f"Lesions of {donor.scan_id} where a part of it was pasted, elsewhere those of {canvas.scan_id}",
            ),
            provenance=provenance,
            draw=asdict(draw),
        )
    return provenance


def _read_pair(pair: Path, donor: Prepared, canvas: Prepared) -> dict[str, Any]:
    """The JSON of a pair folder; raises InputError when it is not of this donor and this canvas, two annotated scans."""
    if donor.scan_id == canvas.scan_id:
        raise InputError(f"{donor.folder}: is donor and canvas at once; give two scans")
    if donor.lesion is None:
        raise InputError(f"{donor.folder}: has no lesion mask; give an annotated donor")
    record = read_record(find_image(pair, "desc-pair.json"), "donor", "canvas", "method")
    for part, given in (("donor", donor), ("canvas", canvas)):
        if record[part] != given.scan_id:
            raise InputError(f"{given.folder}: {pair} was registered with {part} {record[part]}; give its folder")
    return record


def _read_fill_seed(levels: Path, canvas: Prepared) -> int:
    """The seed with which a canvas was filled; raises InputError when the levels folder belongs to another scan."""
    record = read_record(find_image(levels, "desc-levels.json"), "id", "seed")
    if record["id"] != canvas.scan_id:
        raise InputError(f"{levels}: belongs to {record['id']}, not {canvas.scan_id}; give its folder")
    return int(record["seed"])
