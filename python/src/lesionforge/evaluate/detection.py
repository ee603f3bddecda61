"""Lesions of a prediction against lesions of a reference, on arrays: what overlaps what, and which are found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lesionforge.images import label_lesions

# Sizes in mm³ between which lesions are counted apart.
SIZE_BOUNDS_MM3 = (0.0, 10.0, 50.0, 100.0, 500.0, float("inf"))

# Commowick et al. 2018, doi 10.1038/s41598-018-31911-7, as percent: the alpha, gamma and beta of MSSEG 2016.
LEAST_COVERED, ENOUGH_COVERED, MOST_OUTSIDE = 10, 65, 70


@dataclass(frozen=True)
class LesionPairs:
    """The lesions of two masks and where they meet, in voxels; lesions are numbered from 0.

    `sizes_reference` and `sizes_predicted` are int [lesion]. A row k of the last three says that reference lesion
    `reference[k]` and predicted lesion `predicted[k]` share `shared[k]` voxels, at least one; no pair comes twice.
    """

    sizes_reference: np.ndarray
    sizes_predicted: np.ndarray
    reference: np.ndarray
    predicted: np.ndarray
    shared: np.ndarray

    def swapped(self) -> LesionPairs:
        """The same with the roles of reference and prediction exchanged."""
        return LesionPairs(self.sizes_predicted, self.sizes_reference, self.predicted, self.reference, self.shared)


@dataclass(frozen=True)
class SizeBin:
    """The reference lesions of at least `from_mm3` and less than `below_mm3`, and how many of them are found."""

    from_mm3: float
    below_mm3: float
    lesions: int
    found: int

    @property
    def recall(self) -> float:
        """The fraction that is found, 0..1; NaN without lesions of this size."""
        return self.found / self.lesions if self.lesions else float("nan")


@dataclass(frozen=True)
class Lesions:
    """The lesions of a pair of masks one by one, each array [lesion]; what `found` means is the protocol's matter.

    `reference_mm3` and `predicted_mm3` are volumes. `found` says which reference lesions are found, `false` which predicted
    ones are not true. `dice` is the Dice overlap of each reference lesion with the predicted ones that touch it, 0 if none does.
    """

    reference_mm3: np.ndarray
    found: np.ndarray
    dice: np.ndarray
    predicted_mm3: np.ndarray
    false: np.ndarray


def pair_lesions(prediction: np.ndarray, reference: np.ndarray, neighbours: int, least_voxels: int = 1) -> LesionPairs:
    """Label two bool masks [x, y, z] of one grid with 6, 18 or 26 neighbours and count what their lesions share.

    Lesions of fewer than `least_voxels` voxels are taken out of both masks first.
    """
    labels_reference, sizes_reference = large_lesions(reference, neighbours, least_voxels)
    labels_predicted, sizes_predicted = large_lesions(prediction, neighbours, least_voxels)
    both = (labels_reference > 0) & (labels_predicted > 0)
    columns = len(sizes_predicted) + 1
    keys, shared = np.unique(labels_reference[both].astype(np.int64) * columns + labels_predicted[both], return_counts=True)
    return LesionPairs(sizes_reference, sizes_predicted, keys // columns - 1, keys % columns - 1, shared)


def large_lesions(mask: np.ndarray, neighbours: int, least_voxels: int) -> tuple[np.ndarray, np.ndarray]:
    """The lesions of at least `least_voxels` voxels: (labels [x, y, z] from 1 without gaps, their sizes in voxels)."""
    labels, count = label_lesions(mask, neighbours)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    kept = sizes >= least_voxels
    if not kept.all():
        numbers = np.concatenate([[0], np.where(kept, np.cumsum(kept), 0)])
        labels = numbers[labels]
    return labels, sizes[kept]


def found_by_any_overlap(pairs: LesionPairs) -> np.ndarray:
    """Whether each reference lesion shares a voxel with the prediction: bool [lesion]."""
    return np.bincount(pairs.reference, minlength=len(pairs.sizes_reference)) > 0


def found_by_msseg2016(pairs: LesionPairs) -> np.ndarray:
    """Whether each reference lesion is found by the rule of MSSEG 2016: bool [lesion].

    More than 10 % of it must be covered. Then the detections that overlap it are visited, those that share most first
    (ties: the larger one, then the one with less outside, so that the order of the axes does not matter), until those
    visited share at least 65 % of what is covered; none of them may have more than 70 % of its voxels outside every
    reference lesion.
    """
    inside = np.bincount(pairs.predicted, weights=pairs.shared, minlength=len(pairs.sizes_predicted))
    too_far_out = 100 * (pairs.sizes_predicted - inside) > MOST_OUTSIDE * pairs.sizes_predicted
    covered = np.bincount(pairs.reference, weights=pairs.shared, minlength=len(pairs.sizes_reference))
    found = 100 * covered > LEAST_COVERED * pairs.sizes_reference

    ties = (-inside[pairs.predicted], -pairs.sizes_predicted[pairs.predicted])
    order = np.lexsort((*ties, -pairs.shared, pairs.reference))
    lesion, shared = pairs.reference[order], pairs.shared[order]
    # Shared with the detections before, within the same lesion: the running sum less what it was at the lesion's start.
    before = np.cumsum(shared) - shared
    first = np.searchsorted(lesion, lesion)
    before = before - before[first]
    visited = 100 * before < ENOUGH_COVERED * covered[lesion]
    found[lesion[visited & too_far_out[pairs.predicted[order]]]] = False
    return found


def lesions_one_by_one(pairs: LesionPairs, found: np.ndarray, true: np.ndarray, voxel_mm3: float) -> Lesions:
    """The lesions of `pairs` one by one; `found` is bool [reference lesion], `true` bool [predicted lesion]."""
    count = len(pairs.sizes_reference)
    shared = np.bincount(pairs.reference, weights=pairs.shared, minlength=count)
    touching = np.bincount(pairs.reference, weights=pairs.sizes_predicted[pairs.predicted], minlength=count)
    dice = 2 * shared / (pairs.sizes_reference + touching)
    return Lesions(pairs.sizes_reference * voxel_mm3, found, dice, pairs.sizes_predicted * voxel_mm3, ~true)


def size_bins(sizes_mm3: np.ndarray) -> np.ndarray:
    """Between which two of SIZE_BOUNDS_MM3 each volume lies, int [lesion] from 0; one as large as a bound lies above it."""
    # Bounds a trifle lower: ten voxels of 1 mm³ in an oblique header are 9.9999999 mm³.
    return np.digitize(sizes_mm3, [bound * (1 - 1e-5) for bound in SIZE_BOUNDS_MM3[1:-1]])


def lesions_by_size(sizes_mm3: np.ndarray, found: np.ndarray) -> list[SizeBin]:
    """How many reference lesions of each size there are and are found, smallest first, for all of SIZE_BOUNDS_MM3.

    `sizes_mm3` is float [lesion], `found` bool [lesion]. A lesion as large as a bound belongs to the bin above it.
    """
    bins = size_bins(sizes_mm3)
    lesions = np.bincount(bins, minlength=len(SIZE_BOUNDS_MM3) - 1)
    hits = np.bincount(bins[found], minlength=len(lesions))
    bounds = zip(SIZE_BOUNDS_MM3, SIZE_BOUNDS_MM3[1:], lesions, hits, strict=False)
    return [SizeBin(low, high, int(count), int(hit)) for low, high, count, hit in bounds]
