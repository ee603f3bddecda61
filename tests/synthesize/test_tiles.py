"""Tiles: which there are, which are drawn, what is gathered for them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lesionforge.images.geometry import bounding_box
from lesionforge.synthesize.config import CONFIGURATIONS
from lesionforge.synthesize.levels import LEVEL_COUNT, bands, level_masks
from lesionforge.synthesize.network import LATENT_VARIANCE
from lesionforge.synthesize.tiles import (
    LARGEST_WEIGHT,
    StoredScan,
    draw_tiles,
    store_scan,
    tile_batch,
    tile_grid,
    tile_starts,
    tile_stream,
    voxel_weights,
)

SALEM, OURS = CONFIGURATIONS["salem2019"], CONFIGURATIONS["lesionforge"]
# Of our inputs: the image of the slice in the middle, and its masks.
IMAGE = OURS.slice_channels
MASKS = slice(IMAGE + 1, 2 * IMAGE)


def test_tiles_reach_every_brain_voxel() -> None:
    brain = np.zeros((100, 70, 3), bool)
    brain[5:95, 3:66, 1] = True
    reached = np.zeros_like(brain)
    for x, y, z in tile_grid(brain, 64, 32):
        tile = brain[x : x + 64, y : y + 64, z]
        assert tile.shape == (64, 64)
        assert tile.any()
        reached[x : x + 64, y : y + 64, z] = True
    assert reached[brain].all()
    assert tile_starts(64, 64, 32) == [0]
    assert tile_starts(100, 64, 32) == [0, 32, 36]


def test_bounding_box_of_nothing_is_everything() -> None:
    assert bounding_box(np.zeros((3, 4), bool)) == (slice(0, 3), slice(0, 4))


def volumes(seed: int, places: list[tuple[int, int, int]]) -> dict:
    """Images of noise, 90 x 80 x 12, brain but for a margin of two, with levels at a few places."""
    rng = np.random.default_rng(seed)
    brain = np.zeros((90, 80, 12), bool)
    brain[2:-2, 2:-2, 2:-2] = True
    levels = np.zeros((2, *brain.shape), np.uint8)
    for place in places:
        levels[:, *place] = rng.integers(1, LEVEL_COUNT + 1, 2)
    images = [(rng.normal(size=brain.shape) * brain).astype(np.float32) for _ in range(4)]
    return {"real": images[:2], "filled": images[2:], "levels": levels, "brain": brain}


@pytest.mark.parametrize("config", [SALEM, OURS], ids=lambda config: config.name)
def test_a_batch_holds_the_voxels_of_its_tiles(config, tmp_path: Path) -> None:
    patient = volumes(1, [(20, 30, 5), (70, 60, 9)])
    scan = store_scan(tmp_path / "a", **patient, config=config)
    assert scan.shape == (86, 76)
    inputs, targets, weights = tile_batch([scan], np.array([[0, 11, 7, 3]]), config)
    window = (slice(13, 77), slice(9, 73))
    masks = bands if config is SALEM else level_masks
    assert np.array_equal(targets["flair_from_t1w"][0, ..., 0], patient["real"][1][*window, 5])
    assert np.array_equal(targets["t1w_from_fused"][0, ..., 0], patient["real"][0][*window, 5])
    assert targets[LATENT_VARIANCE].shape == (1, 32) and not targets[LATENT_VARIANCE].any()
    for number, z in enumerate(range(5 - config.neighbours, 6 + config.neighbours)):
        channels = inputs["t1w"][0, ..., config.slice_channels * number : config.slice_channels * (number + 1)]
        assert np.array_equal(channels[..., 0], patient["filled"][0][*window, z])
        assert np.array_equal(channels[..., 1:], masks(patient["levels"][0][*window, z]))
        channels = inputs["flair"][0, ..., config.slice_channels * number : config.slice_channels * (number + 1)]
        assert np.array_equal(channels[..., 1:], masks(patient["levels"][1][*window, z]))
    assert inputs["flair"].shape == (1, 64, 64, config.slice_channels * config.slices)
    assert (weights is None) == (config is SALEM)


def test_small_brains_and_end_slices_are_padded_with_zeros(tmp_path: Path) -> None:
    patient = volumes(1, [(20, 30, 5)])
    patient["brain"][40:] = False
    scan = store_scan(tmp_path / "a", **patient, config=OURS)
    assert scan.shape == (64, 76)
    inputs, _, _ = tile_batch([scan], np.array([[0, 0, 0, 0], [0, 0, 0, 7]]), OURS)
    assert not inputs["t1w"][0, ..., :IMAGE].any()
    assert not inputs["t1w"][1, ..., 2 * IMAGE :].any()
    assert inputs["t1w"][0, ..., IMAGE].any()
    assert not inputs["t1w"][:, 38:].any()


def test_the_published_epoch_is_each_tile_of_the_grid_once(tmp_path: Path) -> None:
    scans = [store_scan(tmp_path / str(seed), **volumes(seed, []), config=SALEM) for seed in (1, 2)]
    tiles = draw_tiles(scans, SALEM, np.random.default_rng(0))
    assert len(tiles) == len(np.unique(tiles, axis=0)) == sum(len(scan.grid) for scan in scans) == 2 * 4 * 8
    assert len(draw_tiles(scans, replace(SALEM, tiles_per_epoch=5), np.random.default_rng(0))) == 5


def test_most_of_our_tiles_hold_a_lesion_and_each_patient_gives_as_many(tmp_path: Path) -> None:
    places = [[(3, 3, 3)], [(87, 77, 9), (50, 50, 4), (50, 51, 4)], []]
    scans = [store_scan(tmp_path / str(n), **volumes(n, place), config=OURS) for n, place in enumerate(places)]
    tiles = draw_tiles(scans, replace(OURS, tiles_per_epoch=400), np.random.default_rng(0))
    assert len(tiles) == 400
    holds = np.array([tile_batch(scans, tile[None], OURS)[0]["flair"][..., MASKS].any() for tile in tiles])
    assert 300 <= holds.sum() < 360
    counts = np.bincount(tiles[holds, 0], minlength=3)
    assert abs(int(counts[0]) - int(counts[1])) < 40
    assert counts[2] == 0
    assert (tiles[:, 1] >= 0).all() and (tiles[:, 1] <= 86 - 64).all()
    assert (tiles[~holds, 0] == 2).any()


def test_lesions_and_a_thin_rim_share_the_errors_of_their_tile() -> None:
    levels = np.zeros((3, 64, 64), np.uint8)
    levels[0, 4, 4] = 3
    levels[1, 20:40, 20:40] = 3
    weights = voxel_weights(levels, OURS)
    # A lesion of one voxel would have to weigh more than any voxel may.
    assert (weights[0, 3:6, 3:6] == LARGEST_WEIGHT).all()
    assert weights[1, 19:41, 19:41].sum() == pytest.approx(OURS.lesion_share * 64 * 64, rel=1e-4)
    assert weights[1].mean() == pytest.approx(1, rel=1e-4)
    assert (weights[2] == 1).all()


def test_the_tiles_of_an_epoch_depend_on_seed_and_epoch_only(example: StoredScan) -> None:
    config = replace(OURS, tiles_per_epoch=40, batch_size=32)
    stream = tile_stream([example], config, 1, epoch=1)
    assert len(stream) == 2
    first = stream[0][0]["flair"]
    stream.draw(2)
    second = stream[0][0]["flair"]
    assert not np.array_equal(first, second)
    stream.draw(1)
    assert np.array_equal(stream[0][0]["flair"], first)
    assert np.array_equal(second, tile_stream([example], config, 1, epoch=2)[0][0]["flair"])
    assert not np.array_equal(second, tile_stream([example], config, 2, epoch=2)[0][0]["flair"])


def test_batches_for_several_devices_divide(example: StoredScan) -> None:
    stream = tile_stream([example], replace(OURS, tiles_per_epoch=35, batch_size=32), 1, epoch=1, multiple_of=4)
    assert [len(stream[n][0]["flair"]) for n in range(len(stream))] == [32, 4]


def test_batches_of_many_scans_take_no_more_memory_than_of_few(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    brain = np.ones((160, 160, 60), bool)
    image = rng.normal(size=brain.shape).astype(np.float32)
    levels = (rng.random(brain.shape) < 0.01).astype(np.uint8)
    scan = store_scan(tmp_path / "a", [image, image], [image, image], [levels, levels], brain, OURS)

    def peak_mb(count: int) -> float:
        """Highest resident memory above the start while batches of so many scans are gathered."""
        scans = [scan] * count
        tiles = draw_tiles(scans, replace(OURS, tiles_per_epoch=1600), rng)
        pages = []
        for start in range(0, len(tiles), 32):
            tile_batch(scans, tiles[start : start + 32], replace(OURS, lesion_share=None))
            pages.append(int(Path("/proc/self/statm").read_text().split()[1]))
        return (max(pages) - pages[0]) * 4096 / 1e6

    # The volumes of one scan are 25 MB; each mapping of them would count anew.
    peak_mb(3)
    assert peak_mb(20) < peak_mb(3) + 40
