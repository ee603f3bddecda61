"""Which panels show a scan: read its files, choose the slices, draw."""

from __future__ import annotations

import base64
from pathlib import Path

from lesionforge.errors import InputError
from lesionforge.images import Prepared, derivative, read_mask, read_volume
from lesionforge.images.made import read_on_grid
from lesionforge.report.figures import PREDICTION_COLOUR, REFERENCE_COLOUR, Panel, scan_figure
from lesionforge.report.views import axial_cut, best_slice, grey, sagittal_cut, window

# Brightness of a picture under colours, so that they stand out even on a white lesion.
DIMMED = 0.7
# Beside the scan; more would be too small to judge.
ARMS_IN_ROW = 3

SEGMENTATION_CAPTION = (
    "The axial slice with most reference lesion. Thick blue: reference; thin orange: prediction; one column per arm, its "
    "probability map below (many arms fill several rows, the scan at the left of each). Good: orange follows blue, and high "
    "probability fills the lesions only. Blue without orange is a missed lesion, orange without blue a false one; look whether "
    "it lies at the brain's edge or around the ventricles, where artefacts do."
)
SYNTHETIC_CAPTION = (
    "The axial slice with most synthetic lesion: canvas, synthetic scan, and the same with the outline of its exact mask "
    "(blue), in one window of grey. Good: lesions bright on FLAIR and dark or grey on T1w, with soft edges and the texture of "
    "real ones; nothing changed beyond two voxels of the outline; no bright spot on the canvas that the mask leaves out."
)
PREPARATION_CAPTION = (
    "T1w with the outline of the brain mask (blue) in two planes, tissues over T1w (blue CSF, vermilion grey matter, yellow "
    "white matter), and FLAIR with the outline of the T1w's white matter (orange). Good: the outline hugs the cortex, with "
    "neither skull left nor brain lost; white matter is yellow to the folds; the orange line meets the same folds on FLAIR."
)


def file_uri(path: Path) -> str:
    """A PNG file as `data:image/png;base64,...`; raises InputError when it is damaged."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.verify()
    except (OSError, SyntaxError) as error:
        raise InputError(f"{path}: is no whole picture; write it again with lesionforge evaluate compare") from error
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def segmentation(prepared: Prepared, folders: dict[str, Path]) -> str:
    """T1w and FLAIR of a scan, then for each arm the outlines and the probability map, from its segment folders."""
    scan = prepared.read()
    predicted, probability = {}, {}
    for arm, folder in folders.items():
        predicted[arm] = read_mask(folder / derivative(prepared.scan_id, prepared.grid, "label-lesion_mask"))[0]
        probability[arm] = read_volume(folder / derivative(prepared.scan_id, prepared.grid, "label-lesion_probseg"))[0]
        for volume in (predicted[arm], probability[arm]):
            if volume.shape != scan.brain.shape:
                raise InputError(f"{folder}: has {volume.shape} voxels, its prepared scan {scan.brain.shape}; segment it again")
    cut = axial_cut(best_slice([scan.lesion, *predicted.values()], scan.brain), scan.brain)
    t1w = grey(cut(scan.t1w), cut(scan.brain), window(scan.t1w, scan.brain))
    flair = grey(cut(scan.flair), cut(scan.brain), window(scan.flair, scan.brain))
    reference = (cut(scan.lesion), REFERENCE_COLOUR)
    rows, arms = [], list(folders)
    for first in range(0, len(arms), ARMS_IN_ROW):
        top, below = [Panel("T1w", t1w)], [Panel("FLAIR", flair)]
        for arm in arms[first : first + ARMS_IN_ROW]:
            top.append(Panel(arm, flair * DIMMED, outlines=[reference, (cut(predicted[arm]), PREDICTION_COLOUR)]))
            below.append(Panel("probability", flair * DIMMED, probability=cut(probability[arm])))
        rows += [top, below]
    return scan_figure(rows)


def synthetic(painted: Prepared, canvas: Prepared, levels: Path | None) -> str:
    """A synthetic scan beside its canvas; a patient as canvas is shown filled, as its levels folder holds it."""
    scan, before = painted.read(), canvas.read()
    if before.brain.shape != scan.brain.shape:
        raise InputError(f"{painted.folder}: has {scan.brain.shape} voxels, its canvas {before.brain.shape}; paint it again")
    images = {"FLAIR": (before.flair, scan.flair), "T1w": (before.t1w, scan.t1w)}
    if levels is not None:
        remedy = "synthesize levels"
        images = {
            name: (read_on_grid(levels / derivative(canvas.scan_id, canvas.grid, f"desc-filled_{name}"), before, remedy), after)
            for name, (_, after) in images.items()
        }
    cut = axial_cut(best_slice([scan.lesion], scan.brain), scan.brain)
    title = f"canvas {canvas.scan_id}" + (", filled" if levels is not None else "")
    rows = []
    for name, (old, new) in images.items():
        limits = window(old, before.brain)
        after = grey(cut(new), cut(scan.brain), limits)
        rows.append(
            [
                Panel(f"{name}: {title}", grey(cut(old), cut(before.brain), limits)),
                Panel(f"{name}: synthetic", after),
                Panel(f"{name}: synthetic, mask", after, outlines=[(cut(scan.lesion), REFERENCE_COLOUR)]),
            ]
        )
    return scan_figure(rows)


def preparation(prepared: Prepared) -> str:
    """One row: brain outline in two planes, tissues, and FLAIR under the T1w's white matter."""
    scan = prepared.unmarked().read()
    cut = axial_cut(best_slice([], scan.brain), scan.brain)
    side = sagittal_cut(scan.brain)
    limits = window(scan.t1w, scan.brain)
    t1w = grey(cut(scan.t1w), cut(scan.brain), limits)
    flair = grey(cut(scan.flair), cut(scan.brain), window(scan.flair, scan.brain))
    t1w_side = grey(side(scan.t1w), side(scan.brain), limits)
    return scan_figure(
        [
            [
                Panel("T1w, brain mask", t1w, outlines=[(cut(scan.brain), REFERENCE_COLOUR)]),
                Panel("T1w, brain mask", t1w_side, outlines=[(side(scan.brain), REFERENCE_COLOUR)], sides=("A", "P")),
                Panel("tissues", t1w, tissues=cut(scan.tissues)),
                Panel("FLAIR, white matter of T1w", flair, outlines=[(cut(scan.tissues == 3), PREDICTION_COLOUR)]),
            ]
        ]
    )
