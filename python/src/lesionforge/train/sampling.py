"""Which voxels an epoch looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lesionforge.cascade.settings import CascadeConfig
from lesionforge.images import Scan
from lesionforge.train.network import PATCH
from lesionforge.train.patches import PatchVolume, candidates, gather, patch_volume, score

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class LabelledScan:
    """One scan ready to be sampled: lesion voxels and candidates that are none, int16 [n, 3] each."""

    scan_id: str
    volume: PatchVolume
    lesion: np.ndarray
    healthy: np.ndarray


def label_scan(scan_id: str, scan: Scan, config: CascadeConfig) -> LabelledScan:
    """Lesion voxels inside the brain, and the candidate voxels outside the lesions."""
    volume = patch_volume(scan.t1w, scan.flair, scan.brain)
    return LabelledScan(
        scan_id,
        volume,
        lesion=np.argwhere(scan.lesion & scan.brain).astype(np.int16),
        healthy=candidates(volume, scan.brain & ~scan.lesion, config.candidate_flair_z),
    )


def pool(parts: list[np.ndarray]) -> np.ndarray:
    """Voxels of all scans in one int16 array [n, 4] (number of the scan, x, y, z) from one [n, 3] per scan."""
    rows = [np.column_stack([np.full(len(part), number, np.int16), part]) for number, part in enumerate(parts)]
    return np.concatenate(rows) if rows else np.zeros((0, 4), np.int16)


def draw(pooled: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """`wanted` rows of a non-empty array: every row equally often, the remainder at random without repetition."""
    rounds, rest = divmod(wanted, len(pooled))
    chosen = np.concatenate([np.tile(np.arange(len(pooled)), rounds), rng.choice(len(pooled), rest, replace=False)])
    return pooled[chosen]


def draw_epoch(lesion: np.ndarray, healthy: np.ndarray, samples: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One epoch's voxels [n, 4] and labels uint8 [n], half of them lesion, in random order; both pools hold a voxel."""
    voxels = np.concatenate([draw(lesion, samples // 2, rng), draw(healthy, samples // 2, rng)])
    labels = np.repeat(np.array([1, 0], np.uint8), samples // 2)
    order = rng.permutation(len(labels))
    return voxels[order], labels[order]


def gather_pooled(scans: list[LabelledScan], voxels: np.ndarray) -> np.ndarray:
    """Patches [n, 11, 11, 11, contrast] of pooled voxels [n, 4], in their order."""
    patches = np.empty((len(voxels), PATCH, PATCH, PATCH, scans[0].volume.data.shape[-1]), np.float32)
    for number in np.unique(voxels[:, 0]):
        rows = voxels[:, 0] == number
        patches[rows] = gather(scans[number].volume, voxels[rows, 1:])
    return patches


def hard_negatives(
    network: keras.Model, scans: list[LabelledScan], wanted: int, config: CascadeConfig, rng: np.random.Generator
) -> np.ndarray:
    """CNN2's pool of negatives [n, 4]: healthy candidates that CNN1 takes for lesion.

    Where these are fewer than `wanted`, bright voxels (FLAIR z-score above `fallback_flair_z`) are added at random up to
    that number, and if there is none either, all candidates are the pool.
    """
    mined, bright = [], []
    per_scan = max(1, config.mined_per_negative * wanted // len(scans))
    for scan in scans:
        seen = scan.healthy[rng.permutation(len(scan.healthy))[:per_scan]]
        mined.append(seen[score(network, scan.volume, seen) > config.cnn1_threshold])
        bright.append(scan.healthy[scan.volume.flair_at(scan.healthy) > config.fallback_flair_z])
    found, spare = pool(mined), pool(bright)
    if len(found) < wanted and len(spare):
        found = np.concatenate([found, spare[rng.permutation(len(spare))[: wanted - len(found)]]])
    return found if len(found) else pool([scan.healthy for scan in scans])
