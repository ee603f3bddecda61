"""Which panels show a scan: read its files, choose the slices, draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lesionforge.errors import InputError
from lesionforge.images import Prepared, derivative, read_mask, read_volume
from lesionforge.report.figures import PREDICTION_COLOUR, REFERENCE_COLOUR, Panel, scan_figure
from lesionforge.report.views import axial, best_slice, brain_box, grey, sagittal, window

SEGMENTATION_CAPTION = (
    "The axial slice with most reference lesion. Blue: reference; orange: prediction; one column per arm, its probability "
    "map below. Good: orange follows blue, and high probability fills the lesions only. Blue without orange is a missed lesion, "
    "orange without blue a false one; look whether it lies at the brain's edge or around the ventricles, where artefacts do."
)
SYNTHETIC_CAPTION = (
    "The axial slice with most synthetic lesion: canvas, synthetic scan, and the same with the outline of its exact mask "
    "(blue), in one window of grey. Good: lesions bright on FLAIR and dark or grey on T1w, with soft edges and the texture of "
    "real ones; nothing changed outside the outline; no bright spot on the canvas that the mask leaves out."
)
PREPARATION_CAPTION = (
    "T1w with the outline of the brain mask (blue) in two planes, tissues over T1w (blue CSF, vermilion grey matter, yellow "
    "white matter), and FLAIR with the outline of the T1w's white matter (orange). Good: the outline hugs the cortex, with "
    "neither skull left nor brain lost; white matter is yellow to the folds; the orange line meets the same folds on FLAIR."
)


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
    z = best_slice([scan.lesion, *predicted.values()], scan.brain)
    box = brain_box(scan.brain)

    def cut(volume: np.ndarray) -> np.ndarray:
        return axial(volume[box[0], box[1]], z)

    t1w = cut(grey(scan.t1w, scan.brain, window(scan.t1w, scan.brain)))
    flair = cut(grey(scan.flair, scan.brain, window(scan.flair, scan.brain)))
    reference = (cut(scan.lesion), REFERENCE_COLOUR)
    top, below = [Panel("T1w", t1w)], [Panel("FLAIR", flair)]
    for arm, mask in predicted.items():
        top.append(Panel(arm, flair, outlines=[reference, (cut(mask), PREDICTION_COLOUR)]))
        below.append(Panel(f"{arm}: probability", flair * 0.7, probability=cut(probability[arm])))
    return scan_figure([top, below])


def synthetic(painted: Prepared, canvas: Prepared, levels: Path | None) -> str:
    """A synthetic scan beside its canvas; a canvas with lesions of its own is shown filled when its levels folder is given."""
    scan, before = painted.read(), canvas.read()
    if before.brain.shape != scan.brain.shape:
        raise InputError(f"{painted.folder}: has {scan.brain.shape} voxels, its canvas {before.brain.shape}; paint it again")
    filled = levels is not None and before.lesion.any()
    images = {"FLAIR": (before.flair, scan.flair), "T1w": (before.t1w, scan.t1w)}
    if levels is not None and filled:
        images = {
            name: (read_volume(levels / derivative(canvas.scan_id, canvas.grid, f"desc-filled_{name}"))[0], after)
            for name, (_, after) in images.items()
        }
    z = best_slice([scan.lesion], scan.brain)
    box = brain_box(scan.brain)

    def cut(volume: np.ndarray) -> np.ndarray:
        return axial(volume[box[0], box[1]], z)

    rows = []
    for name, (old, new) in images.items():
        limits = window(old, before.brain)
        after = cut(grey(new, scan.brain, limits))
        rows.append(
            [
                Panel(f"{name}: canvas {canvas.scan_id}" + (", filled" if filled else ""), cut(grey(old, before.brain, limits))),
                Panel(f"{name}: synthetic", after),
                Panel(f"{name}: synthetic, mask", after, outlines=[(cut(scan.lesion), REFERENCE_COLOUR)]),
            ]
        )
    return scan_figure(rows)


def preparation(prepared: Prepared) -> str:
    """One row: brain outline in two planes, tissues, and FLAIR under the T1w's white matter."""
    scan = prepared.read()
    box = brain_box(scan.brain)
    z = best_slice([scan.lesion], scan.brain)
    x = (box[0].start + box[0].stop) // 2 if box[0].start is not None else scan.brain.shape[0] // 2
    # A little beside the middle, where the plane meets brain instead of the cleft between the hemispheres.
    x = min(x + scan.brain.shape[0] // 20, scan.brain.shape[0] - 1)

    def cut(volume: np.ndarray) -> np.ndarray:
        return axial(volume[box[0], box[1]], z)

    def side(volume: np.ndarray) -> np.ndarray:
        return sagittal(volume[:, box[1], box[2]], x)

    t1w = grey(scan.t1w, scan.brain, window(scan.t1w, scan.brain))
    flair = grey(scan.flair, scan.brain, window(scan.flair, scan.brain))
    return scan_figure(
        [
            [
                Panel("T1w, brain mask", cut(t1w), outlines=[(cut(scan.brain), REFERENCE_COLOUR)]),
                Panel("T1w, brain mask", side(t1w), outlines=[(side(scan.brain), REFERENCE_COLOUR)], sides=("A", "P")),
                Panel("tissues", cut(t1w), tissues=cut(scan.tissues)),
                Panel("FLAIR, white matter of T1w", cut(flair), outlines=[(cut(scan.tissues == 3), PREDICTION_COLOUR)]),
            ]
        ]
    )
