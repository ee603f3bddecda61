"""Slices, boxes and windows: what a picture shows and on which side."""

import numpy as np
import pytest

from lesionforge.report.tables import label, show
from lesionforge.report.views import axial, best_slice, brain_box, grey, sagittal, window

SHAPE = (6, 7, 8)


def block(*ranges):
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(*pair) for pair in ranges)] = True
    return mask


def test_the_patients_right_is_on_the_viewers_left_and_front_is_up():
    volume = np.zeros(SHAPE)
    volume[5, 6, 3] = 1  # RAS: far right, front
    rows, columns = np.nonzero(axial(volume, 3))
    assert (rows[0], columns[0]) == (6, 0)
    rows, columns = np.nonzero(sagittal(volume, 5))
    assert (rows[0], columns[0]) == (3, 0)


def test_the_slice_with_most_lesion_wins_then_the_next_mask_then_the_middle_of_the_brain():
    brain, empty = block((0, 6), (0, 7), (2, 7)), np.zeros(SHAPE, bool)
    lesion, prediction = block((1, 2), (1, 2), (2, 5)) | block((1, 4), (1, 4), (4, 5)), block((1, 3), (1, 3), (6, 7))
    assert best_slice([lesion, prediction], brain) == 4
    assert best_slice([empty, prediction], brain) == 6
    assert best_slice([empty, empty], brain) == 4
    assert best_slice([empty], empty) == 4


def test_the_box_holds_the_brain_and_its_margin_inside_the_grid():
    assert brain_box(block((2, 3), (3, 5), (0, 8)), margin=1) == (slice(1, 4), slice(2, 6), slice(0, 8))
    assert brain_box(np.zeros(SHAPE, bool)) == (slice(None),) * 3


def test_outside_the_brain_is_black_and_odd_voxels_do_no_harm():
    image = np.linspace(-1, 1, np.prod(SHAPE)).reshape(SHAPE)
    image[0, 0, 0] = np.nan
    brain = block((0, 3), (0, 7), (0, 8))
    picture = grey(image, brain, window(image, brain))
    assert picture[~brain].max() == 0
    assert (picture.min(), picture.max()) == (0, 1)
    low, high = window(np.zeros(SHAPE), np.zeros(SHAPE, bool))
    assert low < high


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        ("n/a", "–"),
        (float("nan"), "–"),
        (3, "3"),
        (1.0, "1.000"),
        (0.25, "0.250"),
        (-0.5, "−0.500"),
        (49.769, "49.77"),
        (12345.6, "12 346"),
        (0.00012, "0.00012"),
        (True, "yes"),
        ("sub-01", "sub-01"),
    ],
)
def test_values_are_shown_for_readers(value, text):
    assert show(value) == text


def test_units_of_a_name_are_set_apart():
    assert label("lesion_volume_ml") == "lesion volume (ml)"
    assert label("largest_mm3") == "largest (mm³)"
    assert label("dice") == "dice"
