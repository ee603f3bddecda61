"""Laws of warped lesions: none splits, none merges, none vanishes, and all keep their volume."""

import numpy as np
import pytest
from scipy import ndimage

from lesionforge.images import label_lesions
from lesionforge.register.lesions import warp_lesions

SHAPE = (40, 40, 40)
HERE = np.indices(SHAPE, dtype=np.float32)


def scene() -> np.ndarray:
    """Two balls one voxel apart, a lesion one voxel thin and oblique, and one of a single voxel: four lesions."""
    mask = np.zeros(SHAPE, bool)
    for centre in ((12, 10, 12), (12, 18, 12)):
        mask |= ((HERE - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(axis=0) <= 9
    for step in range(16):
        mask[20 + step // 2, 14 + step, 22 + step // 3] = True
    mask[12, 30, 30] = True
    return mask


def wave() -> np.ndarray:
    """A smooth deformation of up to 2 voxels, which shrinks here and stretches there, as source voxels [3, x, y, z]."""
    x, y, z = HERE
    from_x = x + 1.9 * np.sin(y / 3 + z / 6) + 0.4
    from_y = y + 2 * np.sin(z / 5 + x / 4 - 0.5) + 0.06 * (y - 20)
    from_z = z + 1.6 * np.sin(x / 5 + y / 4)
    return np.stack([from_x, from_y, from_z])


def follow(mask: np.ndarray, warped: np.ndarray, source: np.ndarray) -> dict[str, int]:
    """How many lesions split, merged or vanished: each warped voxel belongs to the lesion nearest to where it comes from."""
    numbers, count = label_lesions(mask)
    nearest = ndimage.distance_transform_edt(numbers == 0, return_distances=False, return_indices=True)
    place = source[:, warped].round().astype(int).clip(0, 39)
    origin = numbers[tuple(nearest[:, *place])]
    pieces, _ = label_lesions(warped)
    pairs = np.unique(np.stack([origin, pieces[warped]]), axis=1)
    per_lesion = np.bincount(pairs[0], minlength=count + 1)[1:]
    per_piece = np.bincount(pairs[1])[1:]
    return {"split": int((per_lesion > 1).sum()), "merged": int((per_piece > 1).sum()), "vanished": int((per_lesion == 0).sum())}


def interpolated(mask: np.ndarray, source: np.ndarray, order: int) -> np.ndarray:
    """A mask warped at once: nearest neighbour (order 0), or linearly (order 1) and cut at one half."""
    return ndimage.map_coordinates(mask.astype(np.float32), source, order=order) > 0.5


def test_lesions_neither_split_nor_merge_nor_vanish_where_plain_interpolation_does_it() -> None:
    mask, source = scene(), wave()
    assert label_lesions(mask)[1] == 4
    warped = warp_lesions(mask, source)
    assert follow(mask, warped > 0, source) == {"split": 0, "merged": 0, "vanished": 0}
    assert label_lesions(warped > 0)[1] == 4
    for order in (0, 1):
        assert sum(follow(mask, interpolated(mask, source, order), source).values()) > 0


def test_two_lesions_pressed_together_stay_two() -> None:
    mask = scene()
    source = np.stack([HERE[0], (HERE[1] - 14) * 1.7 + 14.6, HERE[2]])
    warped = warp_lesions(mask, source)
    assert label_lesions(warped > 0)[1] == 4
    assert follow(mask, interpolated(mask, source, 0), source)["merged"] == 1


def test_no_deformation_changes_nothing_and_keeps_the_numbers() -> None:
    mask = scene()
    assert np.array_equal(warp_lesions(mask, HERE), label_lesions(mask)[0])


def test_lesions_keep_their_deformed_volume() -> None:
    mask = scene()
    warped = warp_lesions(mask, np.stack([HERE[0] * 0.8 + 2, HERE[1], HERE[2] + 0.5]))
    assert (warped > 0).sum() == pytest.approx(mask.sum() / 0.8, rel=0.03)


def test_a_lesion_that_leaves_the_grid_is_lost_and_no_lesion_gives_none() -> None:
    mask = scene()
    shifted = np.stack([HERE[0], HERE[1] - 15, HERE[2]])
    assert not warp_lesions(np.zeros(SHAPE, bool), HERE).any()
    assert set(np.unique(warp_lesions(mask, shifted))) < set(range(5))
