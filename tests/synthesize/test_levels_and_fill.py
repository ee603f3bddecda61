"""Laws of intensity levels and lesion filling."""

import numpy as np
import pytest
from scipy import ndimage

from lesionforge.errors import InputError
from lesionforge.images import Scan
from lesionforge.synthesize.fill import IN_PLANE, SMOOTHING_DILATIONS, fill_lesions
from lesionforge.synthesize.levels import (
    LEVEL_COUNT,
    LEVEL_FACTORS,
    PUBLISHED_LEVELS,
    RIM_VOXELS,
    Scale,
    bands,
    hyperintensity_levels,
    level_masks,
    level_middles,
    levels_of,
    scales_of,
    within_levels,
)


@pytest.mark.parametrize("contrast", LEVEL_FACTORS)
def test_bands_are_disjoint_and_masks_nested(contrast: str) -> None:
    units = np.linspace(-1, 7, 1001)
    levels = levels_of(units, contrast)
    assert bands(levels).sum(axis=-1).max() == 1
    assert bands(levels).shape[-1] == PUBLISHED_LEVELS
    for k, factor in enumerate(LEVEL_FACTORS[contrast]):
        assert np.array_equal(level_masks(levels)[..., k] > 0, units > factor)
    for k, factor in enumerate(LEVEL_FACTORS[contrast][:PUBLISHED_LEVELS]):
        assert np.array_equal(bands(levels)[..., k:].any(axis=-1), units > factor)


def test_a_threshold_itself_is_below_its_level() -> None:
    assert list(levels_of(np.array([0.5, np.nextafter(0.5, 1), np.nan]), "flair")) == [0, 1, 0]


@pytest.mark.parametrize("contrast", LEVEL_FACTORS)
def test_what_is_held_in_its_level_has_that_level(contrast: str) -> None:
    levels = np.repeat(np.arange(LEVEL_COUNT + 1, dtype=np.uint8), 7)
    units = np.tile(np.linspace(-1, 5, 7), LEVEL_COUNT + 1)
    held = within_levels(units, levels, contrast)
    assert np.array_equal(levels_of(held, contrast), levels)
    kept = levels_of(units, contrast) == levels
    assert np.allclose(held[kept], units[kept], atol=0.002)
    assert np.array_equal(levels_of(level_middles(contrast), contrast), np.arange(1, LEVEL_COUNT + 1))


def test_scales_bring_tissues_to_their_units_and_back(
    patient: Scan, patient_scales: dict[str, Scale], patient_units: dict[str, np.ndarray]
) -> None:
    units = patient_units
    white, grey = ((patient.tissues == label) & ~patient.lesion for label in (3, 2))
    assert np.median(units["t1w"][white]) == pytest.approx(0, abs=1e-4)
    assert np.median(units["t1w"][grey]) == pytest.approx(1, abs=1e-4)
    assert units["flair"][grey].mean() == pytest.approx(0, abs=0.05)
    for name, scale in patient_scales.items():
        assert np.allclose(scale.intensities(units[name]), getattr(patient, name), atol=1e-5)
    assert Scale(2.0, -0.5).units(np.array([1.0])) == 2


def test_levels_stay_in_lesions_and_their_rims(patient: Scan, patient_units: dict[str, np.ndarray]) -> None:
    units = patient_units
    bright = units | {"flair": units["flair"] + 99}
    levels = hyperintensity_levels(bright, patient.tissues, patient.lesion, 1.0)
    rim = ndimage.binary_dilation(patient.lesion, iterations=RIM_VOXELS) & (patient.tissues == 3)
    assert np.array_equal(levels["flair"] > 0, rim)
    assert not levels["t1w"][~rim].any()
    dark = units | {"flair": units["flair"] - 99}
    assert np.array_equal(hyperintensity_levels(dark, patient.tissues, patient.lesion, 1.0)["flair"], patient.lesion)
    assert not hyperintensity_levels(dark, patient.tissues, None, 1.0)["flair"].any()


@pytest.mark.parametrize("voxel_mm", [1.0, 2.0])
def test_without_a_mask_bright_white_matter_is_the_lesion_but_beside_the_cortex(
    patient: Scan, patient_units: dict[str, np.ndarray], voxel_mm: float
) -> None:
    """The bright deep rim of the cortex was filled in every canvas: networks never saw it and took it for lesion."""
    bright = patient_units["flair"] + 99
    white = patient.tissues == 3
    to_cortex_mm = ndimage.distance_transform_edt(patient.tissues != 2) * voxel_mm
    deep = white & (to_cortex_mm > 2)
    for tissues in (patient.tissues, with_an_island_of_grey_matter(patient.tissues)):
        levels = hyperintensity_levels(patient_units | {"flair": bright}, tissues, None, voxel_mm)["flair"]
        assert np.array_equal(levels > 0, ndimage.binary_dilation(deep, iterations=RIM_VOXELS) & (tissues == 3))
    # Where only what lies beside the cortex is bright, nothing is.
    rim = patient_units["flair"] + np.where(deep, -99, 99)
    assert not hyperintensity_levels(patient_units | {"flair": rim}, patient.tissues, None, voxel_mm)["flair"].any()


def with_an_island_of_grey_matter(tissues: np.ndarray) -> np.ndarray:
    """As a classifier leaves it in a lesion."""
    changed = tissues.copy()
    changed[12, 24, 24] = 2
    return changed


def test_lesions_here_are_bright_in_the_flair_and_dark_in_the_t1w(patient: Scan, levels: dict[str, np.ndarray]) -> None:
    assert levels["flair"][patient.lesion].mean() > 5
    assert levels["t1w"][patient.lesion].mean() > 3


def test_few_bright_outliers_hardly_move_the_scale(patient: Scan, patient_scales: dict[str, Scale]) -> None:
    spoiled = patient.flair.copy()
    grey = np.argwhere(patient.tissues == 2)
    spoiled[tuple(grey[:: len(grey) // 100].T)] = 50
    clean = patient_scales["flair"]
    dirty = scales_of({"t1w": patient.t1w, "flair": spoiled}, patient.tissues, patient.lesion)["flair"]
    assert dirty.zero == pytest.approx(clean.zero, abs=0.02)
    assert dirty.unit == pytest.approx(clean.unit, rel=0.1)


def test_a_missing_tissue_or_a_flat_contrast_is_said(patient: Scan) -> None:
    for label, name in ((2, "grey"), (3, "white")):
        tissues = np.where(patient.tissues == label, 1, patient.tissues)
        with pytest.raises(InputError, match=f"no {name} matter"):
            scales_of({"t1w": patient.t1w, "flair": patient.flair}, tissues, patient.lesion)
    flat = np.zeros_like(patient.t1w)
    for t1w, flair, name in ((flat, patient.flair, "T1w"), (patient.t1w, flat, "FLAIR")):
        with pytest.raises(InputError, match=f"{name} is constant"):
            scales_of({"t1w": t1w, "flair": flair}, patient.tissues, patient.lesion)
    with pytest.raises(InputError, match="check that it is a T1w"):
        scales_of({"t1w": -patient.t1w, "flair": patient.flair}, patient.tissues, patient.lesion)


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


def test_each_of_hundreds_of_components_is_filled(patient: Scan) -> None:
    specks = (np.random.default_rng(0).random(patient.lesion.shape) < 0.02) & (patient.tissues == 3)
    bright = [np.where(specks, 9, image).astype(np.float32) for image in (patient.t1w, patient.flair)]
    filled, what = fill_lesions(bright, specks, patient.tissues == 3, np.random.default_rng(1))
    assert what.components > 200
    assert all(image[specks].max() < 5 for image in filled)
