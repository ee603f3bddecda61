"""Filters of cubes are those of `ndimage`."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy import ndimage

from lesionforge.train import blocks
from lesionforge.train.blocks import BLOCK, GREY, HEALTHY, LESION, OUTSIDE, training_block
from lesionforge.train.cubes import blurred, zoomed


def zoomed_by_ndimage(cubes: np.ndarray, side: int) -> np.ndarray:
    """Cubes [..., n, n, n] as `zoomed` makes them, one after the other."""
    shape = cubes.shape
    zoom = partial(ndimage.zoom, zoom=side / shape[-1], order=1, mode="nearest", grid_mode=True)
    made = [zoom(cube) for cube in cubes.reshape(-1, *shape[-3:]).astype(np.float32)]
    return np.reshape(made, (*shape[:-3], side, side, side))


@pytest.mark.parametrize("sigma", [0.1, 0.7, 5.0])
def test_blurred_is_the_gaussian_filter_of_each_cube(sigma: float, rng) -> None:
    cubes = rng.normal(size=(2, 20, 20, 20))
    expected = np.stack([ndimage.gaussian_filter(cube, sigma) for cube in cubes])
    found = blurred(cubes, sigma)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("before", [2, 20, 32, 40])
def test_zoomed_is_the_linear_zoom_of_each_cube(before: int, rng) -> None:
    cubes = rng.normal(size=(2, before, before, before))
    np.testing.assert_allclose(zoomed(cubes, BLOCK), zoomed_by_ndimage(cubes, BLOCK), atol=2e-6)
    shares = zoomed(cubes > 0, BLOCK)
    assert shares.dtype == np.float32 and shares.min() >= 0 and shares.max() < 1 + 1e-6


@pytest.mark.parametrize("seed", range(8))
def test_blocks_are_what_ndimage_makes_of_the_same_draws(seed: int, monkeypatch, rng) -> None:
    labels = np.full((60, 60, 60), HEALTHY, np.uint8)
    labels[:20], labels[40:], labels[28:33, 27:34, 29:32] = OUTSIDE, GREY, LESION
    data = ndimage.gaussian_filter(rng.normal(size=(60, 60, 60, 2)), (2, 2, 2, 0)).astype(np.float32) * 10
    data *= (labels != OUTSIDE)[..., None]

    def block() -> tuple[np.ndarray, np.ndarray]:
        return training_block(data, labels, np.array([30, 30, 30]), np.random.default_rng(seed), ("T1w", "FLAIR"))

    images, classes = block()
    monkeypatch.setattr(blocks, "blurred", lambda cube, sigma: ndimage.gaussian_filter(cube.astype(np.float32), sigma))
    monkeypatch.setattr(blocks, "zoomed", zoomed_by_ndimage)
    by_ndimage, classes_by_ndimage = block()
    np.testing.assert_array_equal(classes, classes_by_ndimage)
    np.testing.assert_allclose(images, by_ndimage, atol=1e-4)
