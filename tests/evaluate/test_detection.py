"""Detection by lesion: the rule of MSSEG 2016 on hand-made lesions, the smallest lesion, and lesions by size."""

import numpy as np
import pytest

from lesionforge.evaluate.detection import LesionPairs, found_by_msseg2016, lesions_by_size
from lesionforge.evaluate.protocols import measure_pair
from lesionforge.images import least_voxels_above

SHAPE = (11, 9, 8)


def box(*slices):
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(*part) for part in slices)] = True
    return mask


def measured(prediction, reference):
    return measure_pair(prediction, reference, (1, 1, 1), 1.0, "msseg2016")


# The rule of MSSEG 2016, on lesions made by hand: (size of the reference lesion, [(size of a detection, voxels shared)]).


def found(size, *detections):
    sizes, shared = (np.array(values, int) for values in zip(*detections, strict=True))
    lesion = np.zeros(len(detections), int)
    return bool(found_by_msseg2016(LesionPairs(np.array([size]), sizes, lesion, np.arange(len(detections)), shared))[0])


def test_msseg_needs_more_than_a_tenth_of_the_lesion():
    assert not found(100, (10, 10))
    assert found(100, (11, 11))
    assert found(100, (6, 6), (5, 5))  # together


def test_msseg_allows_a_detection_seven_tenths_of_its_voxels_outside_and_no_more():
    assert found(20, (100, 30))
    assert not found(20, (101, 30))


def test_msseg_stops_at_65_percent_of_what_is_covered():
    huge = 1000
    assert found(100, (13, 13), (huge, 7))  # 13 of 20 are 65 %: the huge one is not looked at
    assert not found(100, (12, 12), (huge, 8))  # 12 of 20 are less: it is
    assert not found(100, (huge, 13), (7, 7))  # the one that shares most comes first


def test_msseg_looks_at_the_larger_of_two_detections_first_when_they_share_as_much():
    assert found(100, (50, 40), (40, 40), (1000, 35))
    assert not found(100, (40, 40), (1000, 40), (35, 35))


def test_msseg_counts_what_lies_in_another_lesion_as_inside():
    pairs = LesionPairs(np.array([10, 90]), np.array([100]), np.array([0, 1]), np.array([0, 0]), np.array([10, 90]))
    assert found_by_msseg2016(pairs).tolist() == [True, True]


def test_msseg_takes_lesions_of_3_mm3_out_of_both_masks():
    three, four = box((0, 3), (0, 1), (0, 1)), box((0, 4), (4, 5), (4, 5))
    got = measured(three | four, three | four).measures
    assert (got["lesions_reference"], got["lesions_predicted"]) == (1, 1)
    # A small lesion is background: a detection that only meets it lies outside every lesion.
    lonely = measured(box((0, 4), (0, 1), (0, 1)) | four, three | four).measures
    assert (lonely["lesion_recall"], lonely["lesion_precision"]) == (1, 1 / 2)
    nothing = measured(three, three)
    assert nothing.measures["dice"] == 1
    assert nothing.reasons["lesion_recall"] == "the reference holds no lesion above 3 mm³"


@pytest.mark.parametrize(("voxel_mm3", "least"), [(1.0, 4), (1 + 1e-7, 4), (1 - 1e-7, 4), (0.5, 7), (3.0, 2), (3.1, 1), (2.9, 2)])
def test_the_smallest_lesion_above_3_mm3(voxel_mm3, least):
    assert least_voxels_above(3, voxel_mm3) == least
    assert least_voxels_above(0, voxel_mm3) == 1


def test_lesions_are_counted_by_size_and_none_is_lost():
    sizes, hits = np.array([1, 9.99, 10, 49, 50, 99, 100, 499, 500, 9999]), np.array([1, 0, 1, 1, 0, 0, 1, 0, 1, 1], bool)
    bins = lesions_by_size(sizes, hits)
    assert [(part.from_mm3, part.lesions, part.found) for part in bins] == [
        (0, 2, 1), (10, 2, 2), (50, 2, 0), (100, 2, 1), (500, 2, 2),
    ]  # fmt: skip
    assert np.isnan(lesions_by_size(np.array([1.0]), np.array([True]))[4].recall)


@pytest.mark.parametrize("seed", range(4))
def test_msseg_does_not_depend_on_the_order_of_the_axes(seed):
    rng = np.random.default_rng(seed)
    reference = rng.random((14, 13, 12)) < 0.3
    prediction = np.where(rng.random(reference.shape) < 0.6, reference, rng.random(reference.shape) < 0.3)
    turned = measured(prediction[::-1].transpose(2, 0, 1), reference[::-1].transpose(2, 0, 1))
    assert turned == measured(prediction, reference)


def test_each_lesion_has_its_volume_its_fate_and_its_overlap():
    """A found one, one that shares a detection with it, a missed one; and a false detection."""
    reference = box((0, 2), (0, 1), (0, 1)) | box((4, 8), (0, 1), (0, 1)) | box((0, 3), (4, 5), (4, 5))
    prediction = box((1, 6), (0, 1), (0, 1)) | box((8, 9), (7, 8), (6, 7))
    got = measure_pair(prediction, reference, (1, 1, 2), 2.0, "ours").lesions
    order = np.argsort(got.reference_mm3)
    assert got.reference_mm3[order].tolist() == [4, 6, 8]
    assert got.found[order].tolist() == [True, False, True]
    assert got.dice[order] == pytest.approx([2 * 1 / (2 + 5), 0, 2 * 2 / (4 + 5)])
    assert dict(zip(got.predicted_mm3, got.false, strict=True)) == {10: False, 2: True}
