"""The steps of the stage from folders to folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lesionforge import nets
from lesionforge.errors import InputError
from lesionforge.images import (
    Prepared,
    Scan,
    derivative,
    files_of_a_tool,
    find_image,
    made_folder,
    naming,
    new_folder,
    read_json,
    read_on_grid,
    read_record,
    read_tsv,
    read_volume,
    refuse_lacking,
    refuse_loss,
    scratch_folder,
    voxel_volume_mm3,
    write_json,
    write_made_scan,
    write_volume,
)
from lesionforge.images.geometry import voxel_side_mm
from lesionforge.nets.checkpoint import refuse_inside
from lesionforge.nets.devices import find_device, on_one_device
from lesionforge.synthesize.config import GeneratorConfig
from lesionforge.synthesize.fill import fill_lesions
from lesionforge.synthesize.generator_folder import load_generator, read_generator_card, save_generator
from lesionforge.synthesize.levels import (
    ALWAYS,
    LEVEL_COUNT,
    LEVEL_FACTORS,
    SUFFIXES,
    WHITE_MATTER,
    Scale,
    hyperintensity_levels,
    scales_of,
)
from lesionforge.synthesize.paint import paint_lesions
from lesionforge.synthesize.tiles import StoredScan, coarsely_painted, network_images, network_levels, store_scan
from lesionforge.synthesize.training import draw_validation, train_generator

LEVELS_FILES = files_of_a_tool("desc-filled_*", "desc-levels*_dseg.*", "desc-levels.json")


def images_of(scan: Scan, contrasts: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """A scan's volumes by contrast as this stage names them, all by default; raises InputError when it lacks one."""
    wanted = None if contrasts is None else [SUFFIXES[name] for name in contrasts]
    return {name.lower(): image for name, image in scan.images(wanted).items()}


def write_levels(
    prepared: Prepared, out: Path, seed: int, also: Callable[[Path, dict[str, np.ndarray]], None] = lambda folder, levels: None
) -> dict[str, Any]:
    """Write the levels folder `out/<id>/` of a prepared scan (filled images, levels and scales by contrast); returns its JSON.

    `also` may add files before the folder appears: it gets the folder and the levels. Raises InputError when the scan has no
    usable grey or white matter.
    """
    refuse_loss(out / prepared.scan_id, prepared.folder, own=LEVELS_FILES)
    scan = prepared.read()
    levels, scales = levels_of_scan(prepared, scan)
    hyperintense = (levels["flair"] > 0) & scan.brain
    filled, filling = fill_lesions(
        list(scan.images().values()), hyperintense, scan.tissues == WHITE_MATTER, np.random.default_rng(seed)
    )
    voxel_ml = voxel_volume_mm3(scan.affine) / 1000
    record = {
        "id": prepared.scan_id,
        "seed": seed,
        "scales": {name: asdict(scale) for name, scale in scales.items()},
        "level_factors": {name: LEVEL_FACTORS[name] for name in levels},
        "thresholds": {name: scale.intensities(np.array(LEVEL_FACTORS[name])) for name, scale in scales.items()},
        "level_volumes_ml": {
            name: np.bincount(level.ravel(), minlength=LEVEL_COUNT + 1)[1:] * voxel_ml for name, level in levels.items()
        },
        "domain": "lesion mask and its rim" if prepared.lesion else "hyperintense white matter off the cortex and its rim",
        "filled_volume_ml": np.count_nonzero(hyperintense) * voxel_ml,
        "filling": asdict(filling),
        "versions": nets.versions(),
    }
    with new_folder(out / prepared.scan_id, own=LEVELS_FILES) as folder:
        stem = (prepared.scan_id, prepared.grid)
        for image, suffix in zip(filled, scan.contrasts, strict=True):
            write_volume(image, scan.affine, folder / derivative(*stem, f"desc-filled_{suffix}"))
        for name, level in levels.items():
            write_volume(level, scan.affine, folder / derivative(*stem, level_entity(name)))
        write_json(record, folder / derivative(prepared.scan_id, "desc-levels", extension=".json"))
        also(folder, levels)
    return record


def level_entity(contrast: str) -> str:
    """The end of the name of a file with the levels of a contrast: `desc-levelsFLAIR_dseg`."""
    return f"desc-levels{SUFFIXES[contrast]}_dseg"


def scales_of_scan(prepared: Prepared, scan: Scan) -> dict[str, Scale]:
    """The scales of a scan's contrasts; raises InputError that names its folder when it lacks grey or white matter."""
    try:
        return scales_of(images_of(scan), scan.tissues, scan.lesion)
    except InputError as error:
        raise InputError(f"{prepared.folder}: {error}") from error


def levels_of_scan(prepared: Prepared, scan: Scan) -> tuple[dict[str, np.ndarray], dict[str, Scale]]:
    """The levels of a scan's hyperintensities by contrast, uint8 [x, y, z], and their scales; raises as `scales_of_scan`."""
    scales = scales_of_scan(prepared, scan)
    units = {name: scales[name].units(image) for name, image in images_of(scan).items()}
    lesion = scan.lesion & scan.brain if prepared.lesion else None
    return hyperintensity_levels(units, scan.tissues, lesion, voxel_side_mm(scan.affine)), scales


@dataclass(frozen=True)
class Levels:
    """Paths by contrast and the scales of a levels folder."""

    folder: Path
    scan_id: str
    filled: dict[str, Path]
    levels: dict[str, Path]
    scales: dict[str, Scale]

    @classmethod
    def open(cls, folder: Path) -> Levels:
        """Find the files of a levels folder; raises InputError when one is missing or its JSON is not ours."""
        path = find_image(folder, "desc-levels.json")
        record = read_json(path)
        try:
            scan_id = str(record["id"])
            names = [name for name in SUFFIXES if name in ALWAYS or name in record["scales"]]
            scales = {name: Scale(**record["scales"][name]) for name in names}
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: lacks id or scales; run lesionforge synthesize levels again") from error
        if record.get("level_factors") != {name: list(LEVEL_FACTORS[name]) for name in names}:
            raise InputError(f"{path}: has other levels than this version; run lesionforge synthesize levels again")
        return cls(
            folder=folder,
            scan_id=scan_id,
            filled={name: find_image(folder, f"desc-filled_{SUFFIXES[name]}.nii.gz") for name in names},
            levels={name: find_image(folder, f"{level_entity(name)}.nii.gz") for name in names},
            scales=scales,
        )

    def read(self, scan: Scan) -> dict[str, np.ndarray]:
        """The levels by contrast, uint8 [x, y, z]; raises InputError when they lie on another grid than the scan."""
        return {name: read_on_grid(path, scan, "synthesize levels").astype(np.uint8) for name, path in self.levels.items()}

    def read_filled(self, scan: Scan) -> dict[str, np.ndarray]:
        """The filled images by contrast, float32 [x, y, z]; raises InputError when they lie on another grid than the scan."""
        return {name: read_on_grid(path, scan, "synthesize levels") for name, path in self.filled.items()}

    @property
    def contrasts(self) -> tuple[str, ...]:
        """Its contrasts, in the order of SUFFIXES."""
        return tuple(self.levels)

    def refuse_lacking(self, contrasts: Sequence[str]) -> None:
        """Raise InputError, which names the folder, when one of these contrasts is not there."""
        wanted, held = ([SUFFIXES[name] for name in names] for names in (contrasts, self.contrasts))
        refuse_lacking(wanted, held, str(self.folder))


def match_patients(prepared: list[Prepared], levels: list[Levels], cohort: Path | None) -> list[tuple[Prepared, Levels, str]]:
    """Pair the folders of each patient by scan id: (prepared, levels, split).

    With a cohort folder only patients of splits train and validation are taken: nothing derived from a test subject may
    reach a network. Without it every scan is taken, its split empty. Raises InputError when nothing or a partner is missing.
    """
    splits: dict[str, str] | None = None
    if cohort is not None:
        table = read_tsv(cohort / "cohort.tsv")
        chosen = (table["role"] == "patient") & table["split"].isin(["train", "validation"])
        splits = dict(zip(table.loc[chosen, "id"], table.loc[chosen, "split"], strict=True))
    by_id = {item.scan_id: item for item in prepared}
    matched = []
    for item in sorted(levels, key=lambda item: item.scan_id):
        if splits is not None and item.scan_id not in splits:
            continue
        if item.scan_id not in by_id:
            raise InputError(f"{item.folder}: there is no prepared folder of {item.scan_id}; give it with --prepared")
        matched.append((by_id[item.scan_id], item, splits[item.scan_id] if splits else ""))
    if not matched:
        raise InputError("no patient of split train or validation has a levels folder; run lesionforge synthesize levels first")
    return matched


def store_training_scan(prepared: Prepared, levels: Levels, scratch: Path, config: GeneratorConfig) -> StoredScan:
    """Write what the generator learns from one patient into `scratch/<id>`; raises InputError when the grids differ."""
    scan = prepared.read()
    shown = network_levels(levels.read(scan), config)
    real, filled = (
        network_images([images[name] for name in config.contrasts], scan.brain, levels.scales, config)
        for images in (images_of(scan, config.contrasts), levels.read_filled(scan))
    )
    folder = scratch / prepared.scan_id
    with naming(folder):
        return store_scan(folder, real, coarsely_painted(filled, shown, config), shown, scan.brain, config)


def write_generator(
    patients: list[tuple[Prepared, Levels, str]],
    out: Path,
    config: GeneratorConfig,
    *,
    seed: int,
    device: str,
    checkpoint: Path | None,
    on_epoch: Callable[[dict[str, float]], None],
) -> dict[str, Any]:
    """Train the generator and write its model folder `out`: generator.keras, model.json, history.tsv; returns the card.

    It learns the contrasts that the patients have. Which scans validate is said by `validating_scans`. Raises InputError when
    their contrasts differ, when no training scan holds a hyperintensity, when there is no such device, and as `train_generator`.
    """
    config = replace(config, contrasts=shared_contrasts([levels for _, levels, _ in patients]))
    refuse_loss(out, own=nets.MODEL_FILES)
    refuse_inside(checkpoint, out)
    nets.set_up(seed)
    found_device = find_device(device)
    tiles = checkpoint / ".tiles" if checkpoint else out.absolute().with_name(f".{out.name}.tiles")
    with made_folder(out.absolute().parent):
        with scratch_folder(tiles) as scratch:
            scans = {prepared.scan_id: store_training_scan(prepared, levels, scratch, config) for prepared, levels, _ in patients}
            hyperintense = {scan_id for scan_id, scan in scans.items() if scan.place_count}
            splits = {prepared.scan_id: split for prepared, _, split in patients}
            validation = validating_scans(splits, hyperintense, np.random.default_rng(seed), config.validation_fraction)
            training_ids = [scan_id for scan_id in scans if scan_id not in validation]
            if not hyperintense.intersection(training_ids):
                raise InputError(
                    f"{patients[0][1].folder.parent}: no training patient has a white-matter hyperintensity; "
                    "give patients with lesions"
                )
            model, history = train_generator(
                [scans[scan_id] for scan_id in training_ids],
                [scans[scan_id] for scan_id in sorted(validation)],
                config,
                seed=seed,
                device=found_device,
                checkpoint=checkpoint,
                on_epoch=on_epoch,
            )
        learned_from = [(prepared, levels) for prepared, levels, _ in patients if prepared.scan_id in training_ids]
        # A mask says best what a lesion is; but masks may all be empty.
        annotated = [pair for pair in learned_from if pair[0].lesion and scans[pair[0].scan_id].place_count]
        typical = typical_levels([levels for _, levels in annotated or learned_from])
        who = {"trained_on": training_ids, "validated_on": sorted(validation)}
        return save_generator(out, model, config, history, seed=seed, typical_levels=typical, **who)


def shared_contrasts(patients: Sequence[Levels]) -> tuple[str, ...]:
    """The contrasts of the patients' levels; raises InputError when one lacks a contrast that another has."""
    held = {name for patient in patients for name in patient.contrasts}
    wanted = tuple(name for name in SUFFIXES if name in held)
    for patient in patients:
        patient.refuse_lacking(wanted)
    return wanted


def validating_scans(splits: dict[str, str], hyperintense: set[str], rng: np.random.Generator, fraction: float) -> set[str]:
    """The ids of the scans that validate, of all scans with their splits: those of split validation.

    When none or all have it, a fraction of the subjects with a hyperintensity is drawn, so that one of them is left to
    train on; a lone one goes without validation.
    """
    validation = {scan_id for scan_id, split in splits.items() if split == "validation"}
    if validation and len(validation) < len(splits):
        return validation
    subjects = {scan_id: scan_id.split("_")[0] for scan_id in splits}
    drawn = draw_validation([subjects[scan_id] for scan_id in splits if scan_id in hyperintense], rng, fraction)
    return {scan_id for scan_id, subject in subjects.items() if subject in drawn}


def typical_levels(patients: list[Levels]) -> dict[str, list[int]]:
    """By contrast other than the FLAIR, the median level of the patients' voxels with level 0..12 in the FLAIR.

    Where no voxel has a level of the FLAIR, that of the nearest one that some have, all 0 where there is none.
    """
    others = [name for name in patients[0].contrasts if name != "flair"]
    together = np.zeros((len(others), LEVEL_COUNT + 1, LEVEL_COUNT + 1), int)
    for patient in patients:
        levels = {name: read_volume(path)[0].astype(np.uint8) for name, path in patient.levels.items()}
        for name, counts in zip(others, together, strict=True):
            np.add.at(counts, (levels["flair"].ravel(), levels[name].ravel()), 1)
    held = np.flatnonzero(together[0].sum(axis=1)[1:]) + 1
    found = {}
    for name, counts in zip(others, together, strict=True):
        medians = [int(np.searchsorted(row.cumsum(), row.sum() / 2)) for row in counts]
        nearest = [held[np.abs(held - level).argmin()] if held.size else 0 for level in range(1, LEVEL_COUNT + 1)]
        found[name] = [0, *(medians[level] for level in nearest)]
    return found


def write_painted(transplant: Path, canvas: Prepared, canvas_levels: Levels | None, generator: Path, out: Path) -> dict[str, Any]:
    """Paint a transplant onto its canvas and write the prepared folder `out/<synthetic id>/`; returns its provenance.

    A patient's canvas is first replaced by its filled images (`canvas_levels`). The transplant's draw comes along, so that the
    scan can be made again from it, its donor and its canvas. Raises InputError when the folders do not belong together, or
    when a canvas with lesions comes without its levels folder.
    """
    record = read_record(find_image(transplant, "desc-transplant.json"), "id", "donor", "canvas")
    draw = find_image(transplant, "desc-draw.json")
    if record["canvas"] != canvas.scan_id:
        raise InputError(f"{canvas.folder}: {transplant} is meant for canvas {record['canvas']}; give its folder")
    if canvas_levels and canvas_levels.scan_id != canvas.scan_id:
        raise InputError(f"{canvas_levels.folder}: belongs to {canvas_levels.scan_id}, not {canvas.scan_id}; give its folder")
    card, config = read_generator_card(generator, tuple(name.lower() for name in canvas.contrasts))
    if canvas_levels:
        canvas_levels.refuse_lacking(config.contrasts)
    synthetic_id = str(record["id"])
    refuse_loss(out / synthetic_id, transplant, canvas.folder, canvas_levels.folder if canvas_levels else None, generator)
    nets.set_up(card["seed"])
    scan = canvas.read()
    if canvas_levels is None and scan.lesion.any():
        raise InputError(f"{canvas.folder}: has lesions of its own; give its levels folder with --canvas-levels to fill them")
    remedy = "synthesize transplant"
    lesion = read_on_grid(find_image(transplant, "label-lesion_mask.nii.gz"), scan, remedy) > 0.5
    levels = {
        name: read_on_grid(find_image(transplant, f"{level_entity(name)}.nii.gz"), scan, remedy).astype(np.uint8)
        for name in config.contrasts
    }
    images = canvas_levels.read_filled(scan) if canvas_levels else images_of(scan)
    shown = [images[name] for name in config.contrasts]
    scales = canvas_levels.scales if canvas_levels else scales_of_scan(canvas, scan)
    device = find_device("auto")
    with on_one_device(device):
        network = load_generator(generator, config)
        device.say()
        synthetic = paint_lesions(network, config, shown, scan.brain, lesion, levels, scales)
    # Where a canvas was filled, and where it is painted, the tissue is white matter: lesions lie nowhere else.
    tissues = np.where(scan.lesion | lesion, WHITE_MATTER, scan.tissues)
    provenance = record | {
        "synthetic": True,
        "canvas_filled": canvas_levels is not None,
        "canvas_fill_seed": read_json(find_image(canvas_levels.folder, "desc-levels.json"))["seed"] if canvas_levels else None,
        "generator_checksum": card["checksums"]["generator.keras"],
        "generator_seed": card["seed"],
        "generator_scans": sorted({*card.get("trained_on", []), *card.get("validated_on", [])}),
        "versions": nets.versions(),
    }
    with new_folder(out / synthetic_id) as folder:
        write_made_scan(
            folder,
            synthetic_id,
            canvas.grid,
            images={SUFFIXES[name]: image for name, image in zip(config.contrasts, synthetic, strict=True)},
            brain=scan.brain,
            tissues=tissues,
            lesion=lesion,
            affine=scan.affine,
            descriptions=(f"Brain of {canvas.scan_id}", f"Lesions of {record['donor']} painted into {canvas.scan_id}"),
            provenance=provenance,
            draw=read_json(draw),
        )
    return provenance
