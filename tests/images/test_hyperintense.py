"""Laws of hyperintense white matter."""

import numpy as np
import pytest

from lesionforge.images.hyperintense import hyperintense_off_cortex, hyperintense_volume_mm3, off_cortex
from lesionforge.images.prepared import CSF, GM, WM


def head(side: int = 40) -> np.ndarray:
    """White matter in a shell of grey matter."""
    radius = np.sqrt(((np.indices((side,) * 3) - side / 2) ** 2).sum(axis=0))
    return np.select([radius < 12, radius < 16], [WM, GM], 0).astype(np.uint8)


def bright(tissues: np.ndarray, *boxes: tuple[slice, ...]) -> np.ndarray:
    flair = np.where(tissues == GM, 0.5, 0.0) + np.random.default_rng(0).normal(0, 0.1, tissues.shape)
    for box in boxes:
        flair[box] = 2.0
    return flair.astype(np.float32)


def box_mask(box: tuple[slice, ...]) -> np.ndarray:
    mask = np.zeros((40,) * 3, bool)
    mask[box] = True
    return mask


def volume_mm3(flair: np.ndarray, tissues: np.ndarray, voxel_mm: float) -> float:
    return hyperintense_volume_mm3(hyperintense_off_cortex(flair, tissues, voxel_mm), tissues, voxel_mm)


DEEP = (slice(18, 22),) * 3
BESIDE_THE_CORTEX = (slice(30, 32), slice(18, 22), slice(18, 22))


@pytest.mark.parametrize("voxel_mm", [1.0, 2.0])
def test_the_volume_is_that_of_bright_white_matter_off_the_cortex(voxel_mm: float) -> None:
    tissues = head()
    assert volume_mm3(bright(tissues), tissues, voxel_mm) == 0
    assert volume_mm3(bright(tissues, DEEP), tissues, voxel_mm) == 64 * voxel_mm**3
    # Two voxels beside it are 2 mm at 1 mm; at 2 mm the second lies deeper.
    assert volume_mm3(bright(tissues, BESIDE_THE_CORTEX), tissues, voxel_mm) == (0 if voxel_mm == 1 else 128)


def test_the_scale_of_the_flair_does_not_matter() -> None:
    tissues = head()
    flair = bright(tissues, DEEP)
    assert volume_mm3(300 * flair + 40, tissues, 1.0) == volume_mm3(flair, tissues, 1.0)


@pytest.mark.parametrize(("side", "voxel_mm"), [(1.0, 1.00001), (1.0, 0.99999), (2.0, 2.00001), (2.0, 1.99999)])
def test_rounding_of_the_voxel_size_does_not_move_the_cortex(side: float, voxel_mm: float) -> None:
    np.testing.assert_array_equal(off_cortex(head(), voxel_mm), off_cortex(head(), side))


def test_small_pieces_of_grey_matter_are_no_cortex() -> None:
    tissues = head()
    tissues[20, 20, 20] = GM
    assert off_cortex(tissues, 1.0)[20, 20, 21] and not off_cortex(tissues, 1.0)[31, 20, 20]
    assert not off_cortex(np.full((20, 20, 20), GM), 1.0).any() and off_cortex(np.full((20, 20, 20), WM), 1.0).all()


def test_what_is_bright_is_hyperintense_whatever_its_tissue() -> None:
    tissues = head()
    tissues[19, 19, 19] = CSF
    flair = bright(tissues, DEEP, BESIDE_THE_CORTEX)
    np.testing.assert_array_equal(np.argwhere(hyperintense_off_cortex(flair, tissues, 1.0)), np.argwhere(box_mask(DEEP)))
    assert volume_mm3(flair, tissues, 1.0) == 63


def test_without_grey_matter_there_is_no_volume() -> None:
    assert not hyperintense_off_cortex(np.ones((4, 4, 4)), np.full((4, 4, 4), WM), 1.0).any()
    assert np.isnan(volume_mm3(np.ones((4, 4, 4)), np.full((4, 4, 4), WM), 1.0))
