"""Laws that every protocol keeps, then each against the brute force of its rule on random masks."""

import itertools
import math

import numpy as np
import pytest

from lesionforge.evaluate.detection import pair_lesions
from lesionforge.evaluate.distances import IN_PLANE, IN_SPACE, assd_mm, boundary, hd95_mm
from lesionforge.evaluate.protocols import PROTOCOLS, descriptions, measure_pair

SHAPE = (11, 9, 8)
VOXEL_MM = (0.8, 1.1, 3.0)
EMPTY = np.zeros(SHAPE, bool)
WHOLE_SLICE = EMPTY.copy()
WHOLE_SLICE[:, :, 3] = True
NOT_IN_PLANE = "a mask fills every slice that it is in, so that it has no in-plane boundary"
COUNTS = {"lesions_reference", "lesions_predicted", "lesions_found"}


# Each rule again, voxel by voxel and lesion by lesion, with nothing but loops: slow, and easy to check.

STEPS = {
    neighbours: [step for step in itertools.product((-1, 0, 1), repeat=3) if 0 < sum(map(abs, step)) <= reach]
    for neighbours, reach in ((6, 1), (18, 2), (26, 3))
}


def lesions_of(mask, neighbours, above_mm3=0.0, voxel_mm3=1.0):
    """The lesions of a mask as sets of voxels, by flooding."""
    left, lesions = {tuple(map(int, voxel)) for voxel in np.argwhere(mask)}, []
    while left:
        lesion, edge = set(), [left.pop()]
        while edge:
            voxel = edge.pop()
            lesion.add(voxel)
            for step in STEPS[neighbours]:
                other = tuple(a + b for a, b in zip(voxel, step, strict=True))
                if other in left:
                    left.remove(other)
                    edge.append(other)
        lesions.append(lesion)
    return [lesion for lesion in lesions if len(lesion) * voxel_mm3 > above_mm3]


def count_overlapping(lesions, others):
    everything = set().union(*others)
    return sum(bool(lesion & everything) for lesion in lesions)


def count_found_by_msseg2016(lesions, detections):
    """Counts of voxels are compared as whole numbers: 65 % of 20 is 13, whatever 0.65 is in binary."""
    everything = set().union(*lesions)
    everything_detected = set().union(*detections)
    count = 0
    for lesion in lesions:
        covered = len(lesion & everything_detected)
        if not 100 * covered > 10 * len(lesion):
            continue
        visited, good = 0, True

        def order(detection, lesion=lesion):
            return -len(detection & lesion), -len(detection), -len(detection & everything)

        for detection in sorted(detections, key=order):
            if 100 * visited >= 65 * covered:
                break
            good = good and 100 * len(detection - everything) <= 70 * len(detection)
            visited += len(detection & lesion)
        count += good
    return count


def places_of_boundary(mask, steps, voxel_mm):
    """Places in mm of the voxels that have a background voxel of the array among the neighbours of `steps`."""
    places = []
    for voxel in np.argwhere(mask):
        around = [tuple(voxel + step) for step in np.array(steps)]
        inside = [place for place in around if all(0 <= a < b for a, b in zip(place, mask.shape, strict=True))]
        if not all(mask[place] for place in inside):
            places.append([a * b for a, b in zip(voxel, voxel_mm, strict=True)])
    return places


def nearest_mm(places, others):
    return [min(math.dist(place, other) for other in others) for place in places]


def brute_hd95(prediction, reference, voxel_mm):
    steps = [step for step in STEPS[26] if step[2] == 0]
    one, other = places_of_boundary(prediction, steps, voxel_mm), places_of_boundary(reference, steps, voxel_mm)
    return max(np.percentile(nearest_mm(one, other), 95), np.percentile(nearest_mm(other, one), 95))


def brute_assd(prediction, reference, voxel_mm):
    one, other = places_of_boundary(prediction, STEPS[18], voxel_mm), places_of_boundary(reference, STEPS[18], voxel_mm)
    both = nearest_mm(one, other) + nearest_mm(other, one)
    return sum(both) / len(both)


def noise(seed, density=0.2, shape=SHAPE):
    return np.random.default_rng(seed).random(shape) < density


def box(*slices, shape=SHAPE):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*part) for part in slices)] = True
    return mask


def evaluated(prediction, reference, protocol, voxel_mm=VOXEL_MM):
    return measure_pair(prediction, reference, voxel_mm, float(np.prod(voxel_mm)), protocol)


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return request.param


def test_every_measure_of_a_protocol_is_there_in_order(protocol):
    assert list(evaluated(noise(1), noise(2), protocol).measures) == list(descriptions(protocol))


def test_no_measure_has_two_names(protocol):
    prediction, reference = noise(1, 0.1), noise(1, 0.1) & noise(3, 0.7) | noise(2, 0.02)
    values = [round(value, 12) for value in evaluated(prediction, reference, protocol).measures.values()]
    assert len({*values, *(1 - value for value in values)}) == 2 * len(values)


def test_measures_of_one_name_are_shared_by_all_protocols():
    common = set.intersection(*(set(descriptions(name)) for name in PROTOCOLS))
    assert common >= {"dice", "avd_percent", "lesion_recall", "lesion_precision", "lesion_f1"}
    values = [evaluated(noise(1), noise(2), name).measures for name in PROTOCOLS]
    for name in ("dice", "avd_percent", "voxel_precision", "voxel_recall", "volume_predicted_ml"):
        assert len({one[name] for one in values}) == 1, name


@pytest.mark.parametrize("seed", range(3))
def test_a_mask_with_itself_is_perfect(protocol, seed):
    got = evaluated(noise(seed), noise(seed), protocol)
    for name in ("dice", "lesion_recall", "lesion_precision", "lesion_f1", "voxel_precision", "voxel_recall"):
        assert got.measures[name] == 1, name
    for name in {"avd_percent", "hd95_mm", "assd_mm"} & set(got.measures):
        assert got.measures[name] == 0, name
    assert not got.reasons


@pytest.mark.parametrize("seed", range(3))
def test_swapping_roles_swaps_recall_and_precision_and_keeps_what_is_symmetric(protocol, seed):
    prediction, reference = noise(seed), noise(seed) & noise(seed + 9, 0.6) | noise(seed + 18, 0.05)
    one, other = (evaluated(*pair, protocol).measures for pair in ((prediction, reference), (reference, prediction)))
    assert one["lesion_recall"] == other["lesion_precision"]
    assert one["voxel_recall"] == other["voxel_precision"]
    for name in {"dice", "lesion_f1", "hd95_mm", "assd_mm"} & set(one):
        assert one[name] == pytest.approx(other[name], rel=1e-12), name


def test_what_lies_around_both_masks_does_not_count(protocol):
    prediction, reference = noise(1), noise(2)
    small = evaluated(prediction, reference, protocol)
    wide = [np.pad(mask, ((7, 2), (1, 9), (4, 4))) for mask in (prediction, reference)]
    inner = [np.pad(mask, 1) for mask in (prediction, reference)]
    assert evaluated(*wide, protocol) == evaluated(*inner, protocol)
    for name in set(small.measures) - {"hd95_mm", "assd_mm"}:  # a boundary ends with the field of view
        assert small.measures[name] == evaluated(*wide, protocol).measures[name], name


@pytest.mark.parametrize(
    ("prediction", "reference", "missing"),
    [
        (box((1, 4), (1, 4), (1, 4)), EMPTY, {"avd_percent", "voxel_recall", "lesion_recall", "lesion_f1"}),
        (EMPTY, box((1, 4), (1, 4), (1, 4)), {"voxel_precision", "lesion_precision", "lesion_f1"}),
        (EMPTY, EMPTY, None),
    ],
    ids=["empty reference", "empty prediction", "both empty"],
)
def test_what_is_undefined_is_nan_with_a_reason_and_nothing_else_is(protocol, prediction, reference, missing):
    got = evaluated(prediction, reference, protocol)
    distance = {"hd95_mm", "assd_mm"} & set(got.measures)
    if missing is None:
        missing = set(descriptions(protocol)) - COUNTS - distance - {"volume_reference_ml", "volume_predicted_ml"}
    assert {name for name, value in got.measures.items() if np.isnan(value)} == missing | distance == set(got.reasons)


def test_nothing_found_is_an_f1_of_0(protocol):
    got = evaluated(box((0, 3), (0, 3), (0, 3)), box((6, 9), (5, 8), (4, 7)), protocol)
    assert (got.measures["lesion_recall"], got.measures["lesion_precision"], got.measures["lesion_f1"]) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("voxel_mm", [(1, 1, 1), VOXEL_MM], ids=["isotropic", "anisotropic"])
def test_lesions_are_as_counted_by_brute_force(protocol, seed, voxel_mm):
    rules = PROTOCOLS[protocol]
    density = (0.03, 0.08, 0.15, 0.25)[seed % 4]
    reference = noise(seed, density)
    prediction = np.where(noise(seed + 50, 0.7), reference, noise(seed + 100, density))
    got = evaluated(prediction, reference, protocol, voxel_mm).measures
    wanted = lesions_of(reference, rules.neighbours, rules.above_mm3, np.prod(voxel_mm))
    predicted = lesions_of(prediction, rules.neighbours, rules.above_mm3, np.prod(voxel_mm))
    count = count_found_by_msseg2016 if protocol == "msseg2016" else count_overlapping
    found, true = count(wanted, predicted), count(predicted, wanted)
    assert (got["lesions_reference"], got["lesions_predicted"], got["lesions_found"]) == (len(wanted), len(predicted), found)
    precision = true / len(predicted) if predicted else np.nan
    assert got["lesion_precision"] == pytest.approx(precision, rel=1e-12, nan_ok=True)


def test_the_protocols_differ_where_lesions_meet_at_an_edge_or_a_corner():
    mask = np.zeros(SHAPE, bool)
    for voxel in ((1, 1, 1), (1, 2, 2), (2, 3, 3)):  # an edge, then a corner
        mask[voxel] = True
    counts = {name: len(pair_lesions(mask, mask, rules.neighbours).sizes_reference) for name, rules in PROTOCOLS.items()}
    assert counts == {"ours": 1, "wmh2017": 1, "isbi2015": 2, "miccai2008": 3, "msseg2016": 3}


@pytest.mark.parametrize("voxel_mm", [(1, 1, 1), VOXEL_MM], ids=["isotropic", "anisotropic"])
@pytest.mark.parametrize("seed", range(4))
def test_distances_are_those_of_brute_force(seed, voxel_mm):
    prediction, reference = noise(seed, 0.6), noise(seed + 20, 0.6)
    assert hd95_mm(prediction, reference, voxel_mm) == pytest.approx(brute_hd95(prediction, reference, voxel_mm), rel=1e-12)
    assert assd_mm(prediction, reference, voxel_mm) == pytest.approx(brute_assd(prediction, reference, voxel_mm), rel=1e-12)


@pytest.mark.parametrize(("axis", "wanted"), [(0, 0.8), (1, 1.1), (2, 3.0)])
def test_a_plate_shifted_by_one_voxel_is_one_voxel_away(axis, wanted):
    # A plate of one voxel across the axis: all of it is boundary, and the nearest is straight across.
    slices = [(0, size) for size in SHAPE]
    plates = [box(*slices[:axis], (start, start + 1), *slices[axis + 1 :]) for start in (3, 4)]
    for mask in plates:  # beyond the array a mask goes on, so leave a hole for a plane without an end in it
        mask[tuple(0 if other != axis else slice(None) for other in range(3))] = False
    assert evaluated(*plates, "miccai2008").measures["assd_mm"] == pytest.approx(wanted)
    if axis < 2:
        assert evaluated(*plates, "wmh2017").measures["hd95_mm"] == pytest.approx(wanted)


def test_a_cube_shifted_by_one_voxel_in_its_plane_has_a_known_hd95():
    one, other = box((2, 7), (2, 7), (2, 5)), box((3, 8), (2, 7), (2, 5))
    # 5 x 5 a slice: 16 boundary voxels, 5 of which are a voxel away from the other's boundary, so the 95th percentile is too.
    assert evaluated(one, other, "wmh2017").measures["hd95_mm"] == pytest.approx(0.8)


def test_the_boundary_of_wmh2017_lies_in_the_plane_and_takes_the_corners():
    plus = box((3, 6), (3, 6), (0, 1)) | box((2, 7), (4, 5), (0, 1)) | box((4, 5), (2, 7), (0, 1))
    through_all_slices = np.repeat(plus[:, :, :1], SHAPE[2], axis=2)
    # Of the 3 x 3 core only the centre has all eight neighbours.
    assert len(boundary(through_all_slices, IN_PLANE)) == SHAPE[2] * (through_all_slices[:, :, 0].sum() - 1)
    assert len(boundary(np.ones(SHAPE, bool), IN_SPACE)) == 0


@pytest.mark.parametrize(
    ("mask", "protocol", "name", "reason"),
    [
        (~EMPTY, "miccai2008", "assd_mm", "a mask fills the grid"),
        (~EMPTY, "wmh2017", "hd95_mm", NOT_IN_PLANE),
        (WHOLE_SLICE, "wmh2017", "hd95_mm", NOT_IN_PLANE),
        (WHOLE_SLICE, "miccai2008", "assd_mm", None),
    ],
    ids=["all, in space", "all, in the plane", "a slice, in the plane", "a slice, in space"],
)
def test_a_mask_without_a_boundary_has_no_distance_and_the_reason_is_true(mask, protocol, name, reason):
    got = evaluated(mask, noise(1), protocol)
    assert np.isnan(got.measures[name]) == (reason is not None)
    assert got.reasons == ({name: reason} if reason else {})


SIMPLEITK = {
    "wmh2017": {
        "dice": 0.6137895282529808,
        "hd95_mm": 5.747999999999999,
        "avd_percent": 12.171372930866601,
        "lesion_recall": 0.25,
        "lesion_precision": 0.5,
        "lesion_f1": 0.3333333333333333,
    },
    "miccai2008": {
        "assd_mm": 1.1525995444093935,
        "lesion_recall": 0.5964285714285714,
        "lesion_precision": 0.7123893805309734,
        "lesions_reference": 280,
        "lesions_predicted": 226,
    },
    "msseg2016": {
        "lesion_recall": 0.5737704918032787,
        "lesion_precision": 0.6063829787234043,
        "lesions_reference": 122,
        "lesions_predicted": 94,
    },
    "isbi2015": {"lesion_recall": 1 / 3, "lesion_precision": 0.7142857142857143},  # scikit-image: ITK has no 18 neighbours
}


def test_the_figures_of_a_fixed_case_are_those_of_simpleitk():
    """Figures that SimpleITK 2.5 gave for these masks once (BinaryErode, ConnectedComponent, RelabelComponent); see methods."""
    reference = noise(2017, 0.3, (20, 18, 12))
    prediction = np.where(noise(2018, 0.85, (20, 18, 12)), reference, noise(2019, 0.3, (20, 18, 12)))
    prediction[:6], reference[12:, :8] = False, False
    for protocol, wanted in SIMPLEITK.items():
        got = measure_pair(prediction, reference, (0.958, 0.958, 3.0), 0.958**2 * 3, protocol).measures
        assert {name: got[name] for name in wanted} == pytest.approx(wanted, abs=1e-6), protocol


@pytest.mark.parametrize("seed", range(3))
def test_the_sizes_together_are_all_lesions(protocol, seed):
    got = evaluated(noise(seed), noise(seed + 9), protocol)
    assert sum(part.lesions for part in got.by_size) == got.measures["lesions_reference"]
    assert sum(part.found for part in got.by_size) == got.measures["lesions_found"]
