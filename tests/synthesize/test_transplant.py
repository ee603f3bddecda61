"""Laws of the transplant: room, fates, levels."""

import numpy as np

from lesionforge.images import Scan, label_lesions
from lesionforge.synthesize.levels import GreyMatterFlair, grey_matter_flair
from lesionforge.synthesize.transplant import transplant_lesions, white_matter_room

DONOR = GreyMatterFlair(mean=0, std=1)


def test_no_lesion_voxel_in_csf_or_background(patient: Scan, healthy: Scan) -> None:
    room = white_matter_room(healthy.tissues, healthy.lesion, healthy.brain)
    statistics = grey_matter_flair(patient.flair, patient.tissues, patient.lesion)
    everywhere = np.ones(room.shape, np.uint16)
    result = transplant_lesions(everywhere, patient.flair, room, statistics, 1.0)
    assert result.lesion.any()
    assert set(np.unique(healthy.tissues[result.lesion])) == {3}


def test_fates_kept_cut_and_dropped() -> None:
    room = np.zeros((20, 20, 20), bool)
    room[:10] = True
    numbers = np.zeros(room.shape, np.uint16)
    numbers[2:4, 2:4, 2:4] = 1
    numbers[8:12, 8:12, 8:12] = 3  # number 2 was lost on the way
    numbers[15:17, 2:4, 2:4] = 4
    result = transplant_lesions(numbers, np.zeros(room.shape), room, DONOR, 2.0)
    assert [(fate.lesion, fate.fate) for fate in result.fates] == [(1, "kept"), (3, "cut"), (4, "dropped")]
    assert [fate.warped_mm3 for fate in result.fates] == [16, 128, 16]
    assert [fate.transplanted_mm3 for fate in result.fates] == [16, 64, 0]
    assert result.summary()["counts"] == {"kept": 1, "cut": 1, "dropped": 1}
    assert label_lesions(result.lesion)[1] == 2


def test_a_lesion_that_its_room_cuts_in_two_is_still_one() -> None:
    room = np.ones((12, 6, 6), bool)
    room[5:7] = False
    numbers = np.zeros(room.shape, np.uint16)
    numbers[2:10, 2:4, 2:4] = 1
    assert [fate.fate for fate in transplant_lesions(numbers, np.zeros(room.shape), room, DONOR, 1.0).fates] == ["cut"]


def test_levels_are_at_least_one_inside_and_zero_outside() -> None:
    room = np.ones((8, 8, 8), bool)
    numbers = np.zeros(room.shape, np.uint16)
    numbers[2:6, 2:6, 2:6] = 1
    flair = np.full(room.shape, -3.0)
    flair[3] = 2.0
    levels = transplant_lesions(numbers, flair, room, DONOR, 1.0).levels
    assert set(levels[2, 2:6, 2:6].ravel()) == {1}
    assert set(levels[3, 2:6, 2:6].ravel()) == {5}
    assert not levels[numbers == 0].any()


def test_no_lesions_give_an_empty_transplant() -> None:
    room = np.ones((4, 4, 4), bool)
    result = transplant_lesions(np.zeros(room.shape, np.uint16), np.zeros(room.shape), room, DONOR, 1.0)
    assert not result.lesion.any()
    assert result.fates == []
