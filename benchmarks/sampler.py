"""How varied, repeatable and whole the sampler's lesions are: what `make bench-sampler` prints.

Needs the open_ms set as shared. 100 synthetic scans are drawn and transplanted, not painted, from 3 donors with a FLAIR and 28
masks of a library onto 3 canvases, all as the pipeline does it. The set has one annotated donor beside its test patient:
sub-cs07. The two others are raw scans whose hyperintensities stand in for lesions (level 4 and above, components of at least
10 mm³, as the statistics take them); each also is a canvas, filled, though never for its own lesions. The test patient
sub-cs19 and its mask take no part. Scans that were prepared and pairs that were registered by an earlier run are not made again.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from prepare import measured, prepare, sessions_in, table
from scipy import stats

from lesionforge.cohort.folds import folds_of
from lesionforge.cohort.library import read_library
from lesionforge.cohort.pairs import Donor, Pair, plan_pairs, training_donors
from lesionforge.cohort.rows import Row
from lesionforge.images import (
    Prepared,
    derivative,
    find_image,
    label_lesions,
    new_folder,
    read_json,
    read_mask,
    read_volume,
    voxel_volume_mm3,
    write_mask,
)
from lesionforge.images.interfaces import run
from lesionforge.register import interfaces
from lesionforge.synthesize.levels import ALWAYS, FLAIR
from lesionforge.synthesize.library import hyperintensities
from lesionforge.synthesize.stage import Levels, level_entity
from lesionforge.synthesize.transplant import FATES
from lesionforge.synthesize.transplant_folder import read_draw, write_statistics, write_transplant

ANNOTATED, TEST = "sub-cs07", "sub-cs19"
CANVASES = ("sub-lg01_ses-1", "sub-lg04_ses-1", "sub-lg12_ses-2")
STAND_INS = ("sub-lg01_ses-1", "sub-lg12_ses-2")
SCANS, SEED = 100, 1
SMALLEST_MM3 = 10.0
QUANTILES = (0, 10, 25, 50, 75, 90, 100)
TISSUES = ("background", "CSF", "GM", "WM")


@dataclass(frozen=True)
class Made:
    """One synthetic scan: what was planned, its FLAIR levels on its canvas, what became of its lesions, what it cost, and whether
    its draw alone gave the same voxels again."""

    plan: Pair
    levels: np.ndarray
    record: dict[str, Any]
    cost: dict[str, float]
    repeated: bool

    @property
    def load_ml(self) -> float:
        """The load that was made."""
        return float(self.record["lesion_volume_ml"])

    def same_donor(self, other: Made) -> bool:
        """Whether both have the same donor."""
        return self.plan.donor == other.plan.donor


def levels_of(prepared: Path, out: Path) -> Levels:
    """The levels folder of a prepared scan, made unless an earlier run did."""
    if not (out / "levels" / prepared.name).is_dir():
        measured(["synthesize", "levels", "--prepared", str(prepared), "--out", str(out / "levels")])
    return Levels.open(out / "levels" / prepared.name)


def prepared_scans(data: Path, out: Path) -> dict[str, Path]:
    """The prepared folders of the annotated donor and of the canvases, by scan id."""
    folders = {}
    for session in sessions_in(data, "sub-*/ses-*/anat/*_T1w.nii.gz"):
        if session.scan_id in CANVASES:
            folders[session.scan_id] = prepare(session, out)
    for session in sessions_in(data, f"derivatives/lit/{ANNOTATED}/anat/*_T1w.nii.gz"):
        folders[session.scan_id] = prepare(session, out, "stripped", consensus_of(data, session.scan_id))
    return folders


def consensus_of(data: Path, scan_id: str) -> Path:
    """The consensus mask of a stripped scan."""
    return next((data / "derivatives" / "lit" / scan_id / "anat").glob("*_label-lesion_mask.nii.gz"))


def stand_in(prepared: Path, levels: Levels, out: Path) -> Path:
    """A copy of a prepared folder, made anew, with the scan's hyperintensities as its lesion mask."""
    scan = Prepared.open(prepared)
    volume, affine = read_volume(levels.levels["flair"])
    mask = hyperintensities(volume.astype(np.uint8), float(np.cbrt(voxel_volume_mm3(affine))))
    folder = out / "standins" / scan.scan_id
    with new_folder(folder) as made:
        shutil.copytree(prepared, made, dirs_exist_ok=True)
        write_mask(mask, affine, made / derivative(scan.scan_id, scan.grid, "label-lesion_mask"), "Hyperintensities as lesions")
    return folder


def scan_row(scan_id: str, split: str, mask: Path | str = "") -> Row:
    """A patient's row of a cohort."""
    subject, _, session = scan_id.removeprefix("sub-").partition("_ses-")
    return Row(line=0, subject=subject, session=session, role="patient", split=split, lesion_mask=str(mask))


def donors_of(data: Path, donor_folders: list[Path]) -> list[Donor]:
    """The donors with a FLAIR, then the library without the test patient's mask; as the cohort stage lists them."""
    masks = [find_image(folder, "space-T1w_res-1mm_label-lesion_mask.nii.gz") for folder in donor_folders]
    rows = [scan_row(folder.name, "train", mask) for folder, mask in zip(donor_folders, masks, strict=True)]
    patients = training_donors(rows, {str(mask): volume_ml(mask) for mask in masks})
    test = scan_row(TEST, "test", consensus_of(data, TEST))
    library = read_library(data / "derivatives" / "lesion_masks", folds_of([*rows, test], False, None, SEED))
    if library.problems or library.broken or TEST.removeprefix("sub-") in {donor.subject for donor in library.donors}:
        raise SystemExit(f"the library is not as it should be: {library}")
    return patients + library.donors


def volume_ml(mask: Path) -> float:
    """The volume of a mask."""
    voxels, affine = read_mask(mask)
    return np.count_nonzero(voxels) * voxel_volume_mm3(affine) / 1000


def registered(folder: Path, interface: type, **inputs: Path) -> Path:
    """The folder that one of register's interfaces writes, made unless an earlier run did."""
    if not folder.is_dir():
        run(interface, out=folder.parent, **inputs)
        click.echo(f"{folder.name}: registered", err=True)
    return folder


def pair_folder(plan: Pair, prepared: dict[str, Path], donor_folders: dict[str, Path], out: Path) -> Path:
    """A donor on a canvas, composed from the transforms of both, or through the canvas' own for a mask of the library."""

    def transforms(scan_id: str) -> Path:
        return registered(out / "transforms" / scan_id, interfaces.ToTemplate, prepared=prepared[scan_id])

    folder = out / "register" / f"{plan.donor.donor_id}_to_{plan.canvas}"
    canvas = {"canvas": prepared[plan.canvas], "canvas_transforms": transforms(plan.canvas)}
    if plan.donor.mask:
        return registered(folder, interfaces.LibraryPair, lesions=Path(plan.donor.mask), **canvas)
    donor = {"donor": donor_folders[plan.donor.donor_id], "donor_transforms": transforms(plan.donor.donor_id)}
    return registered(folder, interfaces.Pair, **donor, **canvas)


def transplanted(plan: Pair, pair: Path, canvas: Path, brightness: Levels | Path, out: Path) -> Made:
    """Draw and transplant one scan by the command, then again by its draw alone under another seed."""
    option = ["--donor-levels", str(brightness.folder)] if isinstance(brightness, Levels) else ["--statistics", str(brightness)]
    scan = ["--id", plan.synthetic_id, "--pair", str(pair), "--canvas", str(canvas), *option]
    drawn = ["--load-ml", str(plan.load_ml), "--seed", str(SEED)]
    cost = measured(["synthesize", "transplant", *scan, *drawn, "--out", str(out / "transplant")])
    folder = out / "transplant" / plan.synthetic_id
    draw = read_draw(find_image(folder, "desc-draw.json"))
    # Without statistics: the profiles of a library's lesions are in the draw.
    known = brightness if isinstance(brightness, Levels) else []
    write_transplant(plan.synthetic_id, pair, Prepared.open(canvas), known, out / "repeated", seed=SEED + 1, draw=draw)
    again = out / "repeated" / plan.synthetic_id
    levels, mask = levels_and_mask(folder)
    repeated = all(np.array_equal(one, other) for one, other in zip((levels, mask), levels_and_mask(again), strict=True))
    if not np.array_equal(levels[FLAIR] > 0, mask):
        raise SystemExit(f"{folder}: levels and lesion mask differ")
    record = read_json(find_image(folder, "desc-transplant.json"))
    if len(record["lesions"]) != len(draw.lesions):
        raise SystemExit(f"{folder}: {len(draw.lesions)} lesions were drawn, the record has {len(record['lesions'])}")
    return Made(plan, levels[FLAIR], record, cost, repeated)


def levels_and_mask(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Levels [contrast, x, y, z] and lesion mask of a transplant folder."""
    levels = [read_volume(find_image(folder, f"{level_entity(name)}.nii.gz"))[0].astype(np.uint8) for name in ALWAYS]
    return np.stack(levels), read_mask(find_image(folder, "label-lesion_mask.nii.gz"))[0]


def differences(made: Sequence[Made]) -> Iterator[tuple[bool, int, float]]:
    """(same donor, voxels whose level differs, 1 - Dice of the masks) of every two scans on the same canvas."""
    for canvas in CANVASES:
        here = [one for one in made if one.plan.canvas == canvas]
        stack = np.stack([one.levels.ravel() for one in here])
        stack = stack[:, stack.any(axis=0)]
        sizes = np.count_nonzero(stack, axis=1)
        for i, j in itertools.combinations(range(len(here)), 2):
            common = np.count_nonzero((stack[i] > 0) & (stack[j] > 0))
            apart = int(np.count_nonzero(stack[i] != stack[j]))
            yield here[i].same_donor(here[j]), apart, float(1 - 2 * common / (sizes[i] + sizes[j]))


def difference_rows(made: Sequence[Made]) -> list[list[str]]:
    """How far apart every two scans are, and whether each was repeated."""
    found = list(differences(made))
    rows = []
    for name, chosen in (("same canvas", found), ("same canvas and donor", [one for one in found if one[0]])):
        voxels, apart = np.array([one[1] for one in chosen]), np.array([one[2] for one in chosen])
        rows.append([name, f"{len(chosen)}", f"{np.count_nonzero(voxels == 0)}", f"{voxels.min()}"])
        rows[-1] += [f"{apart.min():.3f}", f"{np.median(apart):.3f}"]
    return rows


def load_rows(made: Sequence[Made], cohort_ml: Sequence[float]) -> list[list[str]]:
    """Quantiles of the loads and how far they are from the cohort's."""
    loads = {"donors": cohort_ml, "asked": [one.plan.load_ml for one in made], "made": [one.load_ml for one in made]}
    rows = []
    for name, values in loads.items():
        test = stats.ks_2samp(cohort_ml, values)
        against = ["", ""] if name == "donors" else [f"{test.statistic:.3f}", f"{test.pvalue:.2f}"]
        rows.append([name, f"{len(values)}", *(f"{value:.2f}" for value in np.percentile(values, QUANTILES)), *against])
    return rows


def kept_of(one: Made) -> np.ndarray:
    """Lesions of at least SMALLEST_MM3 asked and in the mask; volume in mm³ asked and transplanted of those that were asked."""
    asked = [lesion for lesion in one.record["lesions"] if lesion["wanted_mm3"] >= SMALLEST_MM3]
    numbers, count = label_lesions(one.levels > 0)
    # Working grids have voxels of 1 mm³.
    large = np.count_nonzero(np.bincount(numbers.ravel(), minlength=count + 1)[1:] >= SMALLEST_MM3)
    volumes = [sum(lesion[name] for lesion in asked) for name in ("wanted_mm3", "transplanted_mm3")]
    return np.array([len(asked), large, *volumes], float)


def kept_rows(made: Sequence[Made]) -> list[list[str]]:
    """How many lesions and how much of them was kept, of all scans together and of the scan that lost (or won) most."""
    kinds: dict[str, Callable[[Made], bool]] = {
        "donors with a FLAIR": lambda one: not one.plan.donor.mask,
        "library": lambda one: bool(one.plan.donor.mask),
        "all": lambda one: True,
    }
    rows = []
    for name, belongs in kinds.items():
        chosen = [one for one in made if belongs(one)]
        each = np.array([kept_of(one) for one in chosen])
        asked, kept, asked_mm3, kept_mm3 = each.sum(axis=0)
        some = each[each[:, 0] > 0]
        worst = [100 * max(some[:, k + 1] / some[:, k] - 1, key=abs) for k in (0, 2)]
        fates = [sum(one.record["counts"][fate] for one in chosen) for fate in FATES]
        counts = [f"{asked:.0f}", f"{kept:.0f} ({100 * kept / asked - 100:+.1f} %)", f"{worst[0]:+.1f}"]
        volumes = [
            f"{asked_mm3 / 1000:.1f}",
            f"{kept_mm3 / 1000:.1f} ({100 * kept_mm3 / asked_mm3 - 100:+.1f} %)",
            f"{worst[1]:+.1f}",
        ]
        rows.append([name, f"{len(chosen)}", *counts, *volumes, " / ".join(map(str, fates))])
    return rows


def place_row(made: Sequence[Made], canvases: dict[str, Prepared]) -> list[str]:
    """Lesion voxels by the tissue of the canvas, and those outside its brain."""
    count, outside = np.zeros(len(TISSUES), int), 0
    for canvas, prepared in canvases.items():
        scan = prepared.read()
        for one in made:
            if one.plan.canvas == canvas:
                count += np.bincount(scan.tissues[one.levels > 0], minlength=len(TISSUES))
                outside += np.count_nonzero((one.levels > 0) & ~scan.brain)
    return [*map(str, count), str(outside)]


def cost_row(made: Sequence[Made]) -> list[str]:
    """Seconds of a transplant by the command, its processor seconds, and the most memory."""
    costs = {name: np.array([one.cost[name] for one in made]) for name in ("wall_s", "cpu_s", "memory_gb")}
    wall = (f"{value:.1f}" for value in np.percentile(costs["wall_s"], (50, 90, 100)))
    return [*wall, f"{np.median(costs['cpu_s']):.1f}", f"{costs['memory_gb'].max():.2f}"]


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for prepared scans, pairs and transplants.")
def main(data: Path, out: Path) -> None:
    """Print how varied, repeatable and whole the sampler's lesions are on the open_ms set in DATA, as Markdown tables."""
    data, out = data.resolve(), out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    prepared = prepared_scans(data, out)
    levels = {scan_id: levels_of(folder, out) for scan_id, folder in prepared.items()}
    write_statistics([(Prepared.open(prepared[scan_id]), levels[scan_id]) for scan_id in prepared], out / "statistics")
    donor_folders = {ANNOTATED: prepared[ANNOTATED]}
    donor_folders |= {scan_id: stand_in(prepared[scan_id], levels[scan_id], out) for scan_id in STAND_INS}
    donors = donors_of(data, list(donor_folders.values()))
    plan = plan_pairs([scan_row(scan_id, "train") for scan_id in CANVASES], donors, SCANS, None, SEED)
    made = []
    for planned in plan.pairs:
        pair = pair_folder(planned, prepared, donor_folders, out)
        brightness = out / "statistics" if planned.donor.mask else levels[planned.donor.donor_id]
        made.append(transplanted(planned, pair, prepared[planned.canvas], brightness, out))
        click.echo(f"{planned.synthetic_id}: transplanted", err=True)

    same = sum(one.repeated for one in made)
    click.echo(f"{same} of {len(made)} scans were the same, to the voxel, when made again from their draw alone.\n")
    table(
        ["every two scans on the", "pairs", "alike", "fewest voxels of another level", "lowest 1 - Dice", "median 1 - Dice"],
        difference_rows(made),
    )
    header = ["loads, ml", "n", *(f"{q} %" for q in QUANTILES), "Kolmogorov-Smirnov against the donors", "p"]
    table(header, load_rows(made, [donor.load_ml for donor in donors]))
    apart = np.percentile([one.load_ml / one.plan.load_ml for one in made], QUANTILES)
    table(["load made / asked", *(f"{q} %" for q in QUANTILES)], [["", *(f"{value:.2f}" for value in apart)]])
    size = f"of {SMALLEST_MM3:.0f} mm³ and more"
    counts, volumes = ([f"{what}asked", f"{what}made", "worst scan, %"] for what in (f"lesions {size}: ", "their ml: "))
    table(["donors", "scans", *counts, *volumes, f"{' / '.join(FATES)}, any size"], kept_rows(made))
    canvases = {scan_id: Prepared.open(prepared[scan_id]) for scan_id in CANVASES}
    table([*(f"lesion voxels in {name}" for name in TISSUES), "outside the brain mask"], [place_row(made, canvases)])
    header = ["transplant, s: median", "90 %", "most", "processor, s: median", "memory, GB: most"]
    table(header, [cost_row(made)])


if __name__ == "__main__":
    main()
