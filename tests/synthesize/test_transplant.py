"""Laws of the transplant: room, moves, fates, count, levels."""

import numpy as np
import pytest
from scipy import ndimage

from lesionforge.images import Scan, label_lesions
from lesionforge.synthesize.levels import FLAIR
from lesionforge.synthesize.transplant import MOVE_MM, Lesion, Room, room_for_lesions, transplant_lesions


def block(number: int, corner: tuple[int, int, int], shape: tuple[int, int, int], touches: bool = False) -> Lesion:
    return Lesion(number, False, corner, np.full((2, *shape), 3, np.uint8), touches)


def room_of(white: np.ndarray, ribbon: np.ndarray | None = None) -> Room:
    return Room(white, np.zeros_like(white) if ribbon is None else ribbon)


def balls(count: int, largest: int, rng: np.random.Generator) -> list[Lesion]:
    """Balls anywhere on a grid of 48 voxels a side, beyond its border too."""
    lesions = []
    for number in range(1, count + 1):
        radius = rng.integers(1, largest + 1)
        place = np.indices((2 * radius + 1,) * 3) - radius
        mask = (place**2).sum(axis=0) <= radius**2
        x, y, z = (int(n) for n in rng.integers(6, 40, 3))
        lesions.append(
            Lesion(number, False, (x, y, z), mask * rng.integers(1, 9, (2, *mask.shape)).astype(np.uint8), bool(number % 2))
        )
    return lesions


@pytest.mark.parametrize("seed", range(3))
def test_no_lesion_voxel_in_csf_or_background_and_none_is_lost(healthy: Scan, seed: int) -> None:
    room = room_for_lesions(healthy.tissues, healthy.lesion, healthy.brain)
    result = transplant_lesions(balls(12, 3, np.random.default_rng(seed)), room, 1.0)
    assert not (result.lesion & ~(room.white | room.ribbon)).any()
    assert set(np.unique(healthy.tissues[result.lesion])) <= {2, 3}
    placed = [fate for fate in result.fates if fate.fate != "dropped"]
    assert label_lesions(result.lesion)[1] == len(placed)
    assert result.lesion.sum() == sum(fate.transplanted_mm3 for fate in placed)
    assert np.array_equal(result.levels > 0, np.stack([result.lesion] * 2))


def test_lesions_half_out_of_the_white_matter_keep_count_and_volume(healthy: Scan) -> None:
    """Balls on the border of white matter, with ventricle, cortex and each other in the way."""
    room = room_for_lesions(healthy.tissues, healthy.lesion, healthy.brain)
    border = np.argwhere(room.white & ~ndimage.binary_erosion(room.white))
    centres = border[np.random.default_rng(0).permutation(len(border))[:15]]
    mask = (((np.indices((7, 7, 7)) - 3) ** 2).sum(axis=0) <= 9).astype(np.uint8)
    levels = np.stack([mask, mask])
    lesions = [Lesion(n, False, tuple(int(c) - 3 for c in centre), levels, False) for n, centre in enumerate(centres, start=1)]
    result = transplant_lesions(lesions, room, 1.0)
    assert label_lesions(result.lesion)[1] == 15
    assert result.lesion.sum() >= 0.97 * 15 * mask.sum()
    assert max(fate.moved_mm for fate in result.fates) <= MOVE_MM
    assert result.summary()["counts"]["moved"] > 5


def test_fates_kept_moved_cut_and_dropped() -> None:
    white = np.zeros((40, 20, 20), bool)
    white[:10] = True
    white[30:33, 5:8, 5:8] = True
    lesions = [block(1, (2, 2, 2), (2, 2, 2)), block(3, (8, 12, 12), (4, 4, 4)), block(4, (29, 4, 4), (5, 5, 5))]
    lesions.append(block(5, (19, 2, 2), (2, 2, 2)))
    result = transplant_lesions(lesions, room_of(white), 1.0)
    assert [(fate.lesion, fate.fate) for fate in result.fates] == [(1, "kept"), (3, "moved"), (4, "cut"), (5, "dropped")]
    assert [fate.transplanted_mm3 for fate in result.fates] == [8, 64, 27, 0]
    assert [fate.moved_mm for fate in result.fates] == [0, 2, 0, 0]
    assert result.summary()["counts"] == {"kept": 1, "moved": 1, "cut": 1, "dropped": 1}


def test_a_cut_lesion_grows_again_where_there_is_room_and_its_new_voxels_have_levels() -> None:
    """A plate across the border between two rooms that are each too small for it."""
    white = np.zeros((30, 30, 30), bool)
    white[10:14, 8:22, 8:22] = True
    lesion = block(1, (9, 10, 10), (6, 8, 8))
    result = transplant_lesions([lesion], room_of(white), 1.0)
    fate = result.fates[0]
    assert (fate.fate, fate.cut_mm3, fate.wanted_mm3, fate.transplanted_mm3) == ("cut", 128, 384, 384)
    assert not (result.lesion & ~white).any()
    assert set(np.unique(result.levels)) == {0, 3}
    assert label_lesions(result.lesion)[1] == 1


def test_volumes_are_in_cubic_millimetres_whatever_the_voxel() -> None:
    fate = transplant_lesions([block(1, (2, 2, 2), (2, 2, 2))], room_of(np.ones((8, 8, 8), bool)), 2.0).fates[0]
    assert (fate.wanted_mm3, fate.transplanted_mm3) == (64, 64)


def test_lesions_on_one_place_stay_apart() -> None:
    lesions = [block(n, (10, 10, 10), (3, 3, 3)) for n in range(1, 5)]
    result = transplant_lesions(lesions, room_of(np.ones((24, 24, 24), bool)), 1.0)
    assert label_lesions(result.lesion)[1] == 4
    assert result.lesion.sum() == 4 * 27


def test_only_lesions_that_touch_grey_matter_take_the_first_voxel_of_the_ribbon() -> None:
    tissues = np.zeros((20, 12, 12), np.uint8)
    tissues[:10], tissues[10:13] = 3, 2
    room = room_for_lesions(tissues, np.zeros(tissues.shape, bool), tissues > 0)
    assert np.flatnonzero(room.ribbon.any(axis=(1, 2))).tolist() == [10]
    for touches, fate in ((True, "kept"), (False, "moved")):
        result = transplant_lesions([block(1, (8, 4, 4), (3, 3, 3), touches)], room, 1.0)
        assert result.fates[0].fate == fate
        assert bool((tissues[result.lesion] == 2).any()) == touches


def test_a_lesion_that_its_room_cuts_in_two_becomes_one_piece() -> None:
    white = np.ones((40, 6, 6), bool)
    white[19:21] = False
    result = transplant_lesions([block(1, (2, 2, 2), (36, 2, 2))], room_of(white), 1.0)
    assert [fate.fate for fate in result.fates] == ["cut"]
    assert label_lesions(result.lesion)[1] == 1


def test_levels_move_with_their_lesion() -> None:
    levels = np.stack([np.arange(8), np.arange(1, 9)]).astype(np.uint8).reshape(2, 2, 2, 2)
    white = np.zeros((12, 12, 12), bool)
    white[:5] = True
    result = transplant_lesions([Lesion(1, False, (4, 5, 5), levels, False)], room_of(white), 1.0)
    assert np.array_equal(result.levels[:, 3:5, 5:7, 5:7], levels)
    assert np.count_nonzero(result.levels[FLAIR]) == 8


def test_no_lesions_give_an_empty_transplant() -> None:
    result = transplant_lesions([], room_of(np.ones((4, 4, 4), bool)), 1.0)
    assert not result.lesion.any()
    assert result.fates == []
