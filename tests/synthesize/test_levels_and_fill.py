"""Laws of intensity levels and lesion filling."""

import time

import numpy as np
import pytest
from scipy import ndimage

from lesionforge.errors import InputError
from lesionforge.images import Scan
from lesionforge.synthesize.fill import IN_PLANE, SMOOTHING_DILATIONS, fill_lesions
from lesionforge.synthesize.levels import (
    LEVEL_FACTORS,
    GreyMatterFlair,
    bands,
    grey_matter_flair,
    hyperintensity_levels,
    levels_of,
)


def test_bands_are_disjoint_and_nested() -> None:
    statistics = GreyMatterFlair(mean=10, std=2)
    flair = np.linspace(0, 20, 1001)
    masks = bands(levels_of(flair, statistics))
    assert masks.sum(axis=-1).max() == 1
    for k, factor in enumerate(LEVEL_FACTORS):
        assert np.array_equal(masks[..., k:].any(axis=-1), flair > 10 + 2 * factor)


def test_a_threshold_itself_is_below_its_level() -> None:
    statistics = GreyMatterFlair(mean=0, std=1)
    assert list(levels_of(np.array([0.5, np.nextafter(0.5, 1), np.nan]), statistics)) == [0, 1, 0]


def test_levels_stay_in_white_matter_and_lesions(patient: Scan) -> None:
    statistics = grey_matter_flair(patient.flair, patient.tissues, patient.lesion)
    levels = hyperintensity_levels(patient.flair + 9, patient.tissues, patient.lesion, statistics)
    assert np.array_equal(levels > 0, (patient.tissues == 3) | patient.lesion)
    outside = hyperintensity_levels(patient.flair + 9, np.full_like(patient.tissues, 2), patient.lesion, statistics)
    assert np.array_equal(outside > 0, patient.lesion)


def test_few_bright_outliers_hardly_move_the_statistics(patient: Scan) -> None:
    spoiled = patient.flair.copy()
    grey = np.argwhere(patient.tissues == 2)
    spoiled[tuple(grey[:: len(grey) // 100].T)] = 50
    clean = grey_matter_flair(patient.flair, patient.tissues, patient.lesion)
    dirty = grey_matter_flair(spoiled, patient.tissues, patient.lesion)
    assert dirty.mean == pytest.approx(clean.mean, abs=0.02)
    assert dirty.std == pytest.approx(clean.std, rel=0.1)


def test_no_grey_matter_is_said(patient: Scan) -> None:
    with pytest.raises(InputError, match="no grey matter"):
        grey_matter_flair(patient.flair, np.zeros_like(patient.tissues), patient.lesion)


def fill(scan: Scan, lesion: np.ndarray, seed: int = 1) -> list[np.ndarray]:
    return fill_lesions([scan.t1w, scan.flair], lesion, scan.tissues == 3, np.random.default_rng(seed))[0]


def test_filling_hides_the_lesions(patient: Scan) -> None:
    white = (patient.tissues == 3) & ~patient.lesion
    for image, filled in zip((patient.t1w, patient.flair), fill(patient, patient.lesion), strict=True):
        assert abs(filled[patient.lesion].mean() - image[white].mean()) < 0.5 * image[white].std()


def test_filling_changes_nothing_far_from_lesions_nor_outside_white_matter(patient: Scan) -> None:
    near = ndimage.binary_dilation(patient.lesion, IN_PLANE, SMOOTHING_DILATIONS) & (patient.tissues == 3)
    for image, filled in zip((patient.t1w, patient.flair), fill(patient, patient.lesion), strict=True):
        assert np.array_equal(image[~near], filled[~near])
        assert np.isfinite(filled).all()


def test_filling_without_lesions_is_the_identity(healthy: Scan) -> None:
    for image, filled in zip((healthy.t1w, healthy.flair), fill(healthy, healthy.lesion), strict=True):
        assert np.array_equal(image, filled)


def test_the_seed_decides_the_filling(patient: Scan) -> None:
    first, again, other = (fill(patient, patient.lesion, seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_lesion_without_white_matter_around_it_is_filled_all_the_same(patient: Scan) -> None:
    island = np.zeros_like(patient.lesion)
    island[1:4, 1:4, 24] = True
    filled, what = fill_lesions([patient.t1w], island, patient.tissues == 3, np.random.default_rng(1))
    assert (what.components, what.without_ring) == (1, 1)
    white = patient.t1w[patient.tissues == 3]
    assert abs(filled[0][island].mean() - white.mean()) < white.std()


def test_hundreds_of_components_take_seconds(patient: Scan) -> None:
    specks = (np.random.default_rng(0).random(patient.lesion.shape) < 0.02) & (patient.tissues == 3)
    started = time.monotonic()
    _, what = fill_lesions([patient.t1w, patient.flair], specks, patient.tissues == 3, np.random.default_rng(1))
    assert what.components > 200
    assert time.monotonic() - started < 10
