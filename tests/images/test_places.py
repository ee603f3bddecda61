"""Where a lesion lies."""

import numpy as np

from lesionforge.images import PLACES, places


def head() -> tuple[np.ndarray, np.ndarray]:
    """Tissues and brain: a box of white matter in two voxels of grey matter, a ventricle in its middle."""
    tissues = np.zeros((60, 60, 60), np.uint8)
    tissues[5:55, 5:55, 5:55] = 2
    tissues[7:53, 7:53, 7:53] = 3
    tissues[26:34, 20:40, 26:34] = 1
    return tissues, tissues > 0


def lesions() -> np.ndarray:
    """One lesion of each place, numbered as in TOLD."""
    numbers = np.zeros((60, 60, 60), np.uint16)
    for number, corner in enumerate(((35, 30, 30), (50, 40, 40), (42, 40, 45), (28, 15, 12)), start=1):
        numbers[tuple(slice(at, at + 3) for at in corner)] = number
    return numbers


TOLD = {1: "periventricular", 2: "juxtacortical", 3: "deep", 4: "infratentorial"}


def test_each_place_is_told() -> None:
    tissues, brain = head()
    assert places(lesions(), tissues, brain, 1.0) == TOLD
    assert set(TOLD.values()) == set(PLACES)


def test_the_field_of_view_changes_no_place() -> None:
    volumes = [lesions(), *head()]
    wide = [np.pad(volume, ((3, 20), (0, 7), (15, 1))) for volume in volumes]
    tight = [volume[5:55, 5:55, 5:55] for volume in volumes]
    assert places(*wide, 1.0) == places(*tight, 1.0) == TOLD


def test_a_lesion_outside_the_brain_has_a_place_and_no_lesion_has_none() -> None:
    tissues, brain = head()
    numbers = np.zeros(tissues.shape, np.int32)
    assert places(numbers, tissues, brain, 1.0) == {}
    numbers[58, 58, 58] = 3
    assert places(numbers, tissues, brain, 1.0) == {3: "deep"}


def test_without_a_ventricle_nothing_is_periventricular() -> None:
    tissues, brain = head()
    told = places(lesions(), np.where(tissues == 1, 3, tissues), brain, 1.0)
    assert told == TOLD | {1: "deep"}
