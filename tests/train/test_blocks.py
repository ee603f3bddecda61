"""Laws of the blocks that the dense network learns from and is applied to."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import keras
import numpy as np
import pytest
from scipy import ndimage

from lesionforge import nets
from lesionforge.cascade.card import cascade_entries
from lesionforge.cascade.settings import CONFIGURATIONS
from lesionforge.train import blocks, fit
from lesionforge.train.blocks import (
    BLOCK,
    GREY,
    HEALTHY,
    LESION,
    MARGIN,
    OUTSIDE,
    block_loss,
    cut,
    plain_block,
    score_densely,
    training_block,
)
from lesionforge.train.fit import JUDGED_BLOCKS, Samples, best_row, judge_epoch, judged_part, train_cascade
from lesionforge.train.network import build_network
from lesionforge.train.patches import PatchVolume, score
from lesionforge.train.sampling import (
    LabelledScan,
    draw_by_lesion,
    draw_by_scan,
    draw_by_weight,
    hard_negatives,
    pool,
    sizes_of_lesions,
    stored_scan,
)

CONTRASTS = ("T1w", "FLAIR")
TINY = replace(CONFIGURATIONS["lesionforge"], epochs=1, steps_per_epoch=2)


def made_scan(seed: int, sides: tuple[int, int, int] = (44, 40, 36)) -> LabelledScan:
    rng = np.random.default_rng(seed)
    labels = np.full(sides, HEALTHY, np.uint8)
    labels[:6] = OUTSIDE
    labels[28:] = GREY
    labels[20:24, 18:22, 15:20] = LESION
    data = (rng.normal(0, 0.3, (*sides, 2)) + 2.0 * (labels == LESION)[..., None]).astype(np.float32) * (labels != OUTSIDE)[
        ..., None
    ]
    start = np.full(3, 5)
    return LabelledScan(
        f"sub-{seed}",
        PatchVolume(data, start),
        np.argwhere(labels == LESION).astype(np.int16),
        np.argwhere((labels == HEALTHY) | (labels == GREY)).astype(np.int16),
        PatchVolume(labels, start),
        sizes_of_lesions(labels == LESION),
    )


def test_a_box_beyond_the_volume_is_filled_with_zeros(rng) -> None:
    volume = rng.normal(size=(6, 7, 8, 2)).astype(np.float32)
    corner, sides = np.array([-3, 2, 5]), np.array([8, 9, 4])
    expected = np.pad(volume, [(10, 10)] * 3 + [(0, 0)])[7:15, 12:21, 15:19]
    np.testing.assert_array_equal(cut(volume, corner, sides), expected)
    assert not cut(volume, np.array([40, 0, 0]), sides).any()


@pytest.mark.parametrize("seed", range(12))
def test_a_training_block_holds_its_centre_and_nothing_outside_the_brain(seed: int) -> None:
    scan = made_scan(seed)
    rng = np.random.default_rng(seed)
    images, classes = training_block(scan.volume.data, scan.labels.data, np.array([22, 20, 17]), rng, CONTRASTS)
    assert images.shape == (BLOCK,) * 3 + (2,) and images.dtype == np.float32
    assert set(np.unique(classes)) <= {OUTSIDE, HEALTHY, LESION, GREY}
    assert (classes == LESION).any()
    assert not images[classes == OUTSIDE].any()
    again, _ = training_block(scan.volume.data, scan.labels.data, np.array([22, 20, 17]), np.random.default_rng(seed), CONTRASTS)
    np.testing.assert_array_equal(images, again)


def test_threads_change_nothing_of_what_is_drawn(monkeypatch) -> None:
    scan = made_scan(1)
    samples = Samples([scan], pool([scan.lesion]), pool([scan.healthy]), CONTRASTS)
    made = []
    for count in (1, 4):
        monkeypatch.setattr(fit, "threads", lambda count=count: count)
        made.append(list(fit.batches(samples, TINY, np.random.default_rng(3))))
    for alone, together in zip(*made, strict=True):
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one, other)
    first, second = (images for images, _ in made[0])
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first, second)


def test_without_random_changes_a_block_is_the_scan_turned(monkeypatch) -> None:
    for name in ("SHIFTED_SHARE", "ZOOMED_SHARE"):
        monkeypatch.setattr(blocks, name, 0)
    monkeypatch.setattr(blocks, "_change_contrast", lambda image, rng: image)
    scan = made_scan(3)
    images, classes = training_block(
        scan.volume.data, scan.labels.data, np.array([22, 20, 17]), np.random.default_rng(0), CONTRASTS
    )
    assert set(np.round(images[classes != OUTSIDE].ravel(), 4)) <= set(np.round(scan.volume.data.ravel(), 4))
    assert images[classes == LESION].mean() > 1.5 and abs(images[classes == HEALTHY].mean()) < 0.1


@pytest.mark.parametrize("seed", range(6))
def test_grey_matter_changes_as_a_whole_and_alone(seed: int, monkeypatch) -> None:
    monkeypatch.setattr(blocks, "SHIFTED_SHARE", 1)
    monkeypatch.setattr(blocks, "_change_lesions", lambda *_: None)
    monkeypatch.setattr(blocks, "_change_contrast", lambda image, rng: image)
    scan = made_scan(seed)
    flat = np.where(scan.labels.data[..., None] != OUTSIDE, np.float32(1), 0).repeat(2, axis=-1)
    images, classes = training_block(flat, scan.labels.data, np.array([27, 20, 17]), np.random.default_rng(seed), CONTRASTS)
    deep = ndimage.binary_erosion(classes == GREY, iterations=4, border_value=1)
    far = ndimage.binary_erosion((classes == HEALTHY) | (classes == LESION), iterations=4, border_value=1)
    assert deep.any() and far.any()
    for contrast, image in zip(CONTRASTS, np.moveaxis(images, -1, 0), strict=True):
        low, high = blocks.GREY_SHIFT.get(contrast, blocks.GREY_SHIFT["else"])
        assert np.ptp(image[deep]) < 1e-3 and low - 1e-3 < image[deep].mean() - 1 < high + 1e-3
        np.testing.assert_allclose(image[far], 1, atol=1e-3)
    assert abs(images[deep].mean() - 1) > 1e-3


def test_the_loss_does_not_count_the_margin_or_what_lies_outside(rng) -> None:
    classes = np.full((1, BLOCK, BLOCK, BLOCK), HEALTHY, np.uint8)
    classes[0, 14:18, 14:18, 14:18] = LESION
    classes[0, 20:22] = OUTSIDE
    found = np.where(classes == LESION, 0.99, 0.01).astype(np.float32)

    def loss(found: np.ndarray) -> float:
        return float(
            block_loss(keras.ops.convert_to_tensor(classes), keras.ops.convert_to_tensor(np.stack([1 - found, found], -1)))
        )

    best = loss(found)
    other = found.copy()
    other[0, :MARGIN] = 0.9
    other[0, 20:22] = 0.9
    assert loss(other) == pytest.approx(best)
    other[0, 14:18, 14:18, 14:18] = 0.01
    assert loss(other) > best + 0.1


class Marks:
    """A network that says what it is told of the voxels that are bright in the FLAIR."""

    def __init__(self, bright: float) -> None:
        self.bright = bright

    def predict_on_batch(self, blocks: np.ndarray) -> np.ndarray:
        found = np.where(blocks[..., 1] > 1.2, self.bright, 1 - self.bright).astype(np.float32)
        return np.stack([1 - found, found], axis=-1)


def test_validation_judges_the_same_unchanged_blocks_by_the_loss_of_training() -> None:
    scans = [made_scan(seed) for seed in range(2)]
    samples = Samples(scans, pool([scan.lesion for scan in scans]), pool([scan.healthy for scan in scans]), CONTRASTS)
    judge = judged_part(samples, TINY, np.random.default_rng(0))
    assert judge is not None and len(judge.lesion) == len(judge.healthy) == JUDGED_BLOCKS // 2
    assert set(judge.lesion[:, 0]) == {0, 1}
    right, wrong = (judge_epoch(Marks(bright), judge, TINY) for bright in (0.9999, 0.0001))
    assert right == judge_epoch(Marks(0.9999), judge, TINY)
    assert right < 0.4 < 1.5 < wrong
    number, *centre = judge.lesion[0]
    scan = scans[number]
    images, classes = plain_block(scan.volume.data, scan.labels.data, np.array(centre) - scan.volume.start + 5)
    assert classes[BLOCK // 2, BLOCK // 2, BLOCK // 2] == LESION and images.shape == (BLOCK,) * 3 + (2,)
    assert set(images[classes == LESION, 1]) <= set(scan.volume.data[scan.labels.data == LESION, 1])
    # A pool of few is judged whole, and none without one.
    few = judged_part(replace(samples, lesion=samples.lesion[:5]), TINY, np.random.default_rng(0))
    assert few is not None and len(few.lesion) == 5
    assert judged_part(replace(samples, lesion=samples.lesion[:0]), TINY, np.random.default_rng(0)) is None


def test_the_validation_loss_of_blocks_falls_while_they_are_learned(monkeypatch) -> None:
    monkeypatch.setattr(fit, "JUDGED_BLOCKS", 8)
    config = replace(TINY, epochs=3, steps_per_epoch=30)
    scans = [made_scan(seed) for seed in range(2)]
    samples = [Samples([scan], pool([scan.lesion]), pool([scan.healthy]), CONTRASTS) for scan in scans]
    nets.set_up(1)
    rng = np.random.default_rng(1)
    judge = judged_part(samples[1], config, rng)
    network = build_network("dense")
    before = judge_epoch(network, judge, config)
    _, history = fit.fit_network("cnn1", network, samples[0], judge, config, rng, lambda _: None)
    losses = [row.val_loss for row in history]
    assert losses[-1] < 0.8 * before and best_row(history) is not history[0], (before, losses)


def test_tiles_agree_where_their_context_is_whole(rng, monkeypatch) -> None:
    network = build_network("dense")
    data = rng.normal(size=(56, 40, 36, 2)).astype(np.float32)
    points = np.argwhere(np.ones(data.shape[:3], bool))
    at_once = score_densely(network, data, points)
    # Two tiles along x, whose contexts reach beyond the whole volume.
    monkeypatch.setattr(blocks, "LARGEST_TILE", 64)
    monkeypatch.setattr(blocks, "HALO", 64)
    wide = score_densely(network, data, points)
    monkeypatch.setattr(blocks, "LARGEST_TILE", 32)
    np.testing.assert_allclose(score_densely(network, data, points), wide, atol=1e-4)
    # Nearer zeros change little, and nothing in the middle.
    assert np.abs(at_once - wide).mean() < 0.02
    assert score_densely(network, data, points[:0]).shape == (0,)


def test_scores_come_in_the_order_of_the_voxels(rng) -> None:
    network = build_network("dense")
    scan = made_scan(1)
    voxels = scan.healthy[rng.permutation(len(scan.healthy))[:50]]
    order = rng.permutation(50)
    np.testing.assert_allclose(score(network, scan.volume, voxels)[order], score(network, scan.volume, voxels[order]), atol=1e-5)


def test_blocks_come_from_scans_by_weight_not_by_load() -> None:
    scans = [replace(made_scan(0), weight=1.0), replace(made_scan(1), weight=3.0)]
    pooled = pool([scans[0].lesion, scans[1].lesion[:2]])
    drawn = Counter(draw_by_scan(scans, pooled, 4000, np.random.default_rng(0))[:, 0].tolist())
    assert 0.22 < drawn[0] / 4000 < 0.28
    nothing = pool([scans[0].lesion[:0], scans[1].lesion])
    assert set(draw_by_scan(scans, nothing, 100, np.random.default_rng(0))[:, 0]) == {1}


def test_of_a_scan_small_lesions_come_oftener_than_their_voxels_would(monkeypatch) -> None:
    lesion = np.zeros((40, 40, 40), bool)
    lesion[5:15, 5:15, 5:14] = True  # 900 voxels
    lesion[30, 30:33, 30:33] = True  # 9 voxels
    scan = replace(made_scan(0), lesion=np.argwhere(lesion).astype(np.int16), lesion_sizes=sizes_of_lesions(lesion))
    for power, share in ((1, 9 / 909), (0.5, 3 / 33), (0, 1 / 2)):
        monkeypatch.setattr(blocks, "LESION_SIZE_POWER", power)
        drawn = draw_by_lesion([scan], pool([scan.lesion]), 20_000, np.random.default_rng(0))
        assert abs((drawn[:, 1] == 30).mean() - share) < 0.01
        assert len({tuple(row) for row in drawn}) > 850 or power == 0


def test_lesions_are_drawn_of_the_scans_that_have_some_by_their_weights() -> None:
    scans = [replace(made_scan(0), weight=1.0), made_scan(1), replace(made_scan(2), weight=3.0)]
    nothing = np.zeros((0, 3), np.int16)
    scans[1] = replace(scans[1], lesion=nothing, lesion_sizes=nothing[:, 0])
    pooled = pool([scan.lesion for scan in scans])
    drawn = draw_by_lesion(scans, pooled, 4000, np.random.default_rng(0))
    assert 0.22 < (drawn[:, 0] == 0).mean() < 0.28 and not (drawn[:, 0] == 1).any()
    assert {tuple(row) for row in drawn} <= {tuple(row) for row in pooled}
    with pytest.raises(ValueError, match="a pool of"):
        draw_by_lesion(scans, pooled[1:], 10, np.random.default_rng(0))


def test_patches_come_from_voxels_by_the_weights_of_their_scans() -> None:
    scans = [replace(made_scan(0), weight=1.0), replace(made_scan(1), weight=0.5)]
    pooled = pool([scans[0].healthy[:100], scans[1].healthy[:600]])
    drawn = draw_by_weight(scans, pooled, 8000, np.random.default_rng(0))
    assert 0.23 < (drawn[:, 0] == 0).mean() < 0.27  # 100 against half of 600
    assert {tuple(row) for row in drawn} == {tuple(row) for row in pooled}
    alike = [replace(scan, weight=0.5) for scan in scans]
    every = draw_by_weight(alike, pooled, len(pooled), np.random.default_rng(0))
    assert {tuple(row) for row in every} == {tuple(row) for row in pooled}


def test_what_cnn1_gets_wrong_is_healthy(rng) -> None:
    scans = [made_scan(seed) for seed in range(2)]
    network = build_network("dense")
    found = hard_negatives(network, scans, 50, replace(TINY, cnn1_threshold=0.0), rng)
    assert len(found) and (np.diff(found[:, 0]) >= 0).all()
    for number, *voxel in found[::97]:
        place = np.array(voxel) - scans[number].volume.start + 5
        assert scans[number].labels.data[tuple(place)] in (HEALTHY, GREY)


def test_training_reads_volumes_from_files_and_cnn2_goes_on_from_cnn1(tmp_path) -> None:
    scans = [stored_scan(made_scan(seed), tmp_path / f"sub-{seed}") for seed in range(2)]
    assert all(not isinstance(scan.volume.source, np.ndarray) and isinstance(scan.volume.data, np.memmap) for scan in scans)
    nets.set_up(1)
    models, history = train_cascade(scans, [], TINY, 1, lambda _: None)
    assert [row.network for row in history] == ["cnn1", "cnn2"]
    first, second = (models[name].get_weights()[0] for name in ("cnn1", "cnn2"))
    fresh = build_network("dense").get_weights()[0]
    assert np.abs(first - second).max() < np.abs(first - fresh).max() / 5


def test_the_card_says_what_the_networks_see() -> None:
    """It said z-scores whatever the configuration was."""
    said = {name: cascade_entries(config, 1.0)["normalisation"] for name, config in CONFIGURATIONS.items()}
    assert "z-score" in said["published"] and "prepare" in said["lesionforge"]
    assert "z-score" not in said["lesionforge"]
