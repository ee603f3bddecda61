"""Laws of the array functions of `prepare`."""

import nibabel as nib
import numpy as np
import pytest

from lesionforge.images import from_ants, same_grid, to_ants, working_grid
from lesionforge.prepare.align import without_bias
from lesionforge.prepare.strip import brain_of_stripped, refined, rough_mask
from lesionforge.prepare.tissues import CSF, GM, WM, classify, hyperintense_to_white_matter, standard_units

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def ball(shape, centre, radius):
    place = np.indices(shape) - np.array(centre)[:, None, None, None]
    return (place**2).sum(axis=0) <= radius**2


@pytest.mark.parametrize("background", [0.0, -7.5])
def test_the_brain_of_a_stripped_scan_is_what_differs_from_its_background(background):
    brain = ball((30, 30, 30), (15, 15, 15), 9)
    hole = ball((30, 30, 30), (15, 15, 15), 2)
    data = np.where(brain & ~hole, 50.0, background)
    data[2, 2, 2] = 3.0
    found = brain_of_stripped(data)
    assert (found & ~brain).sum() == 0
    assert found[hole].all()
    assert found.sum() > 0.97 * brain.sum()


def test_the_rough_mask_is_the_brain_even_where_the_neck_is_larger():
    shape = (70, 70, 90)
    brain = ball(shape, (35, 35, 62), 22)
    scalp = ball(shape, (35, 35, 62), 30) & ~ball(shape, (35, 35, 62), 27)
    neck = np.zeros(shape, bool)
    neck[5:65, 5:65, :28] = True
    found = rough_mask(100.0 * (brain | scalp | neck), AFFINE)
    assert (found & brain).sum() > 0.99 * brain.sum()
    assert not (found & (neck | scalp)).any()
    assert found.sum() < 1.2 * brain.sum()


def layered_brain(rng, csf_radius=19):
    """Shells of WM, GM and CSF, their classes and a T1w-like image of them."""
    shape = (44, 44, 44)
    classes = np.where(ball(shape, (22, 22, 22), 13), WM, np.where(ball(shape, (22, 22, 22), 17), GM, CSF))
    classes = classes * ball(shape, (22, 22, 22), csf_radius)
    image = np.choose(classes, (0, 30, 70, 100)) + rng.normal(0, 5, shape)
    return classes, image


def normalise(image, brain, classes):
    return standard_units(image, brain, classes).normalise(image, brain)


def test_normalised_intensities_ignore_scale_offset_and_what_lies_outside_the_brain(rng):
    classes, image = layered_brain(rng)
    brain = classes > 0
    first = normalise(image, brain, classes)
    second = normalise(3 * image + 40 + 1e4 * ~brain, brain, classes)
    assert np.allclose(first, second, atol=1e-4)
    assert first[brain].mean() == pytest.approx(0, abs=0.5)
    assert first[brain].std() == pytest.approx(1, abs=0.2)
    assert not first[~brain].any()


def test_neither_lesions_nor_csf_in_the_mask_move_the_white_matter(rng):
    classes, image = layered_brain(rng)
    wide_classes, wide = layered_brain(rng, csf_radius=21)
    wide[18:26, 18:26, 18:26] = 20
    first, second = (normalise(*scan) for scan in ((image, classes > 0, classes), (wide, wide_classes > 0, wide_classes)))
    inner = (classes == WM) & (wide != 20)
    assert np.median(first[inner]) == pytest.approx(np.median(second[inner]), abs=0.05)


def test_the_refined_mask_takes_the_cortex_that_the_template_lost_and_leaves_skull_and_marrow():
    shape = (90, 90, 90)
    cortex, csf, skull = (ball(shape, (45, 45, 45), radius) for radius in (30, 32, 35))
    marrow = ball(shape, (45, 45, 45), 37) & ~skull
    t1w = np.where(cortex, 100.0, np.where(csf, 30, np.where(skull, 5, np.where(marrow, 100, 0))))
    flair = np.where(cortex, 100.0, np.where(csf, 20, np.where(skull, 5, np.where(marrow, 80, 0))))
    prior = ball(shape, (45, 45, 42), 30)  # 3 mm of the vertex are missing, and as much skull is in it below
    found = refined(t1w, flair, prior, 1.0)
    assert (found & cortex).sum() > 0.995 * cortex.sum()
    assert (found & ~csf).sum() < 0.02 * cortex.sum()
    assert found.sum() > 1.03 * cortex.sum()
    nothing = np.zeros(shape, bool)
    assert not refined(t1w, flair, nothing, 1.0).any()


def test_the_same_scan_gives_the_same_tissues_twice(rng):
    brain = ball((24, 24, 24), (12, 12, 12), 10)
    classes = np.where(ball(brain.shape, (12, 12, 12), 5), 3, np.where(ball(brain.shape, (12, 12, 12), 8), 2, 1)) * brain
    t1w = (50.0 * classes + rng.normal(0, 20, brain.shape)) * brain
    priors = tuple(np.where(classes == label, 0.6, 0.2).astype(np.float32) * brain for label in (1, 2, 3))
    first, second = (classify(t1w, brain, priors, AFFINE) for _ in range(2))
    assert np.array_equal(first, second)
    assert (first == classes)[brain].mean() > 0.8


def test_hyperintense_voxels_become_white_matter_and_no_others(rng):
    tissues = np.full((30, 30, 30), GM, np.uint8)
    tissues[15:] = WM
    tissues[0] = 0
    flair = rng.normal(10, 1, tissues.shape).clip(8, 11)
    bright = {"cortex": (3, 15, 15), "beside white matter": (14, 15, 15), "expected": (4, 5, 5), "black hole": (20, 20, 20)}
    prior = np.zeros(tissues.shape)
    for place in bright.values():
        flair[place] = 30
    tissues[bright["black hole"]] = CSF
    prior[bright["expected"]] = 1
    found = hyperintense_to_white_matter(tissues, flair, prior, voxel_mm=1.0)
    changed = sorted(map(tuple, np.argwhere(found != tissues).tolist()))
    assert changed == sorted([bright["beside white matter"], bright["expected"], bright["black hole"]])


def test_n4_removes_a_smooth_field_and_keeps_the_range(rng):
    brain = ball((40, 40, 40), (20, 20, 20), 16)
    truth = np.where(ball(brain.shape, (20, 20, 20), 9), 150.0, 100.0) * brain
    field = np.exp(0.4 * (np.indices(brain.shape)[0] - 20) / 20)
    image = truth * field + rng.normal(0, 1, brain.shape) * brain
    corrected = without_bias(image, brain, AFFINE)
    spread_before = np.std(image[brain] / truth[brain])
    spread_after = np.std(corrected[brain] / truth[brain])
    assert spread_after < 0.5 * spread_before
    assert corrected[brain].mean() == pytest.approx(image[brain].mean(), rel=0.1)


def test_ras_and_lps_meet_again(rng):
    data = rng.normal(size=(5, 6, 7)).astype(np.float32)
    affine = nib.affines.from_matvec(np.array([[0, -1.5, 0], [2, 0, 0], [0, 0, 3.0]]), [5, -3, 2])
    back, back_affine = from_ants(to_ants(data, affine))
    assert np.array_equal(back, data)
    assert np.allclose(back_affine, affine)


def test_the_working_grid_covers_the_scan_and_a_scan_on_it_keeps_it():
    affine = nib.affines.from_matvec(np.array([[-0.7, 0, 0], [0, -0.7, 0], [0, 0, 3.0]]), [80, 90, -40])
    shape, grid = working_grid((200, 220, 40), affine, 1.0)
    assert nib.aff2axcodes(grid) == ("R", "A", "S")
    assert np.allclose(np.abs(np.diag(grid)[:3]), 1)
    corners = np.array([[0, 0, 0], [199, 219, 39]])
    inside = nib.affines.apply_affine(np.linalg.inv(grid), nib.affines.apply_affine(affine, corners))
    assert (inside >= -0.51).all()
    assert (inside <= np.array(shape) - 0.49).all()
    again = working_grid(shape, grid, 1.0)
    assert same_grid(*again, shape, grid)


@pytest.mark.parametrize(("away_mm", "is_same"), [(0.06, True), (0.08, False)])
def test_grids_are_the_same_to_a_tenth_of_a_voxel(away_mm: float, is_same: bool):
    """As where a program that places a scan by its qform writes a mask of it; slices are thicker than their pixels."""
    grid = np.diag([-0.7, 0.7, 3, 1])
    other = grid.copy()
    other[1, 3] += away_mm
    assert same_grid((320, 320, 40), other, (320, 320, 40), grid) == is_same
