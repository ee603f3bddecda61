"""Quality figures of a prepared scan: what a person would check first. docs/quality.md says what each means."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np
from scipy import ndimage

from lesionforge.images import to_ants, voxel_volume_mm3
from lesionforge.images.geometry import box_around
from lesionforge.prepare.tissues import CSF, GM, WM

# Where the template is this sure of a tissue, contrast and noise are measured.
SURE = 0.8
# Edges are looked at where the T1w has its strongest, as fine as thick slices show them, away from the brain's surface, which
# the mask draws into every image.
EDGE_SCALE_MM = 2
EDGE_RIM_MM = 4
EDGE_SHARE_PERCENT = 20
NAMES = {CSF: "csf", GM: "gm", WM: "wm"}


def tissue_volumes(brain: np.ndarray, classes: np.ndarray, affine: np.ndarray) -> dict[str, float]:
    """Volumes in ml of the brain and its tissues, the tissues' shares in percent, the brain's proportion; NaN without a brain."""
    voxel_ml = voxel_volume_mm3(affine) / 1000
    total = int(brain.sum())
    figures = {"brain_volume_ml": total * voxel_ml, "brain_proportion": brain_proportion(brain, affine)}
    for label, name in NAMES.items():
        count = int((classes == label).sum())
        figures[f"{name}_volume_ml"] = count * voxel_ml
        figures[f"{name}_share_percent"] = 100 * count / total if total else float("nan")
    return figures


def brain_proportion(brain: np.ndarray, affine: np.ndarray) -> float:
    """The brain's spread along its shortest principal axis over that along its longest, in mm; NaN below two voxels.

    Half a brain is flat. Principal axes, because heads are turned.
    """
    places = nib.affines.apply_affine(affine, np.argwhere(brain))
    if len(places) < 2:
        return float("nan")
    shortest, _, longest = np.linalg.eigvalsh(np.cov(places.T)).clip(0)
    return float(np.sqrt(shortest / longest)) if longest > 0 else float("nan")


def lesion_figures(lesion: np.ndarray | None, brain: np.ndarray, affine: np.ndarray) -> dict[str, float | None]:
    """Volume in ml of a lesion mask and its share in percent outside the brain; None without a mask, NaN for an empty one."""
    if lesion is None:
        return {"lesion_volume_ml": None, "lesion_outside_brain_percent": None}
    total = int(lesion.sum())
    return {
        "lesion_volume_ml": total * voxel_volume_mm3(affine) / 1000,
        "lesion_outside_brain_percent": 100 * int((lesion & ~brain).sum()) / total if total else float("nan"),
    }


def contrast(image: np.ndarray, brain: np.ndarray, priors: Sequence[np.ndarray]) -> float:
    """Median of sure white matter minus that of sure grey matter, over the brain's standard deviation.

    Positive in a T1w, negative in a FLAIR. By the template's priors, because the tissues found follow the T1w as given.
    NaN where there is no such matter or no spread.
    """
    gm, wm = (image[brain & (prior > SURE)] for prior in priors[1:])
    spread = float(image[brain].std()) if brain.any() else 0.0
    if not gm.size or not wm.size or spread == 0:
        return float("nan")
    return float(np.median(wm) - np.median(gm)) / spread


def variation(image: np.ndarray, where: np.ndarray) -> float:
    """Robust coefficient of variation (interquartile range over median) of the voxels of a mask; NaN without any."""
    if not where.any():
        return float("nan")
    low, middle, high = np.percentile(image[where], (25, 50, 75))
    return float((high - low) / middle) if middle > 0 else float("nan")


def reduction_percent(before: float, after: float) -> float:
    """By how many percent a figure fell; negative where it rose, NaN where it was zero."""
    return 100 * (before - after) / before if before > 0 else float("nan")


def mutual_information(t1w: np.ndarray, flair: np.ndarray, brain: np.ndarray, affine: np.ndarray) -> float:
    """Mutual information (Mattes, in nats) of two scans [x, y, z] inside the brain's box, 0 outside the brain."""
    import ants

    if not brain.any():
        return float("nan")
    box, affine = box_around(brain, affine, 0)
    return -float(ants.image_mutual_information(to_ants(t1w[box] * brain[box], affine), to_ants(flair[box] * brain[box], affine)))


def mismatch(t1w: np.ndarray, other: np.ndarray, brain: np.ndarray, voxel_mm: float) -> float:
    """Mean squared sine of the angle between the gradients of T1w and another contrast [x, y, z] at the T1w's strongest edges.

    0 where the edges run alike, 2/3 where they know nothing of each other, 1 where the other is empty. Contrast, scale and
    bias do not count. `brain` may be a mask or the brain's share of each voxel. NaN for a brain without an inside.
    Source: normalised gradient fields, Haber and Modersitzki 2006, doi 10.1007/11866763_89.
    """
    inside = ndimage.distance_transform_edt(np.pad(brain >= 0.5, 1), sampling=voxel_mm)[1:-1, 1:-1, 1:-1] > EDGE_RIM_MM
    if not inside.any():
        return float("nan")
    ours, theirs = (_gradients(image, inside, EDGE_SCALE_MM / voxel_mm) for image in (t1w, other))
    strength = np.linalg.norm(ours, axis=0)
    edges = strength >= np.percentile(strength, 100 - EDGE_SHARE_PERCENT)
    lengths = (strength * np.linalg.norm(theirs, axis=0))[edges]
    cosines = np.divide((ours * theirs).sum(axis=0)[edges], lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return float(1 - (cosines**2).mean())


def _gradients(image: np.ndarray, where: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian gradients of an image at the voxels of a mask, [3, voxels]."""
    return np.stack([ndimage.gaussian_filter(image, sigma, order=order)[where] for order in np.eye(3, dtype=int).tolist()])
