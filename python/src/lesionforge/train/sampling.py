"""Which voxels an epoch looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionforge.cascade.settings import CascadeConfig
from lesionforge.images import Scan, label_lesions
from lesionforge.images.geometry import bounding_box, voxel_side_mm
from lesionforge.images.names import ALWAYS
from lesionforge.images.prepared import GM
from lesionforge.train import blocks
from lesionforge.train.blocks import GREY, HEALTHY, LESION
from lesionforge.train.network import PATCH
from lesionforge.train.patches import (
    HALF,
    PatchVolume,
    candidates,
    gather,
    inner_part,
    patch_volume,
    score,
    stored_volume,
)

if TYPE_CHECKING:
    import keras

# A block around a voxel shows its neighbours too, so that these are enough of them.
MOST_CENTRES = 200_000


@dataclass(frozen=True)
class LabelledScan:
    """One scan ready to be sampled: lesion voxels and candidates that are none, int16 [n, 3] each.

    `labels` is uint8 [x, y, z] like the volume, with the classes of `train.blocks`. `weight` is how often a voxel is drawn.
    `lesion_sizes` [n] has for each lesion voxel how many its lesion has.
    """

    scan_id: str
    volume: PatchVolume
    lesion: np.ndarray
    healthy: np.ndarray
    labels: PatchVolume
    lesion_sizes: np.ndarray
    weight: float = 1.0

    def mapped(self) -> LabelledScan:
        """The same scan, its volumes mapped once (see `PatchVolume.mapped`)."""
        return replace(self, volume=self.volume.mapped(), labels=self.labels.mapped())


def label_scan(
    scan_id: str, scan: Scan, config: CascadeConfig, contrasts: Sequence[str] = ALWAYS, weight: float = 1.0
) -> LabelledScan:
    """Lesion voxels inside the brain, and the candidate voxels outside the lesions; raises InputError as `Scan.images` does."""
    volume = patch_volume(list(scan.images(contrasts).values()), scan.brain, config)
    inner = inner_part(scan.brain, config.candidate_depth_mm, voxel_side_mm(scan.affine))
    healthy = candidates(volume, inner & ~scan.lesion, config.candidate_flair_z)
    if config.in_blocks and len(healthy) > MOST_CENTRES:
        healthy = healthy[np.sort(np.random.default_rng(0).permutation(len(healthy))[:MOST_CENTRES])]
    lesion = scan.lesion & scan.brain
    box = bounding_box(scan.brain)
    labels = np.where(scan.tissues[box] == GM, np.uint8(GREY), np.uint8(HEALTHY)) * scan.brain[box]
    labels[lesion[box]] = LESION
    return LabelledScan(
        scan_id,
        volume,
        lesion=np.argwhere(lesion).astype(np.int16),
        healthy=healthy,
        labels=PatchVolume(np.pad(labels, HALF), volume.start),
        lesion_sizes=sizes_of_lesions(lesion),
        weight=weight,
    )


def sizes_of_lesions(lesion: np.ndarray) -> np.ndarray:
    """For each voxel of a bool mask [x, y, z], in the order of `np.argwhere`, how many voxels its lesion has; int32 [n]."""
    numbers = label_lesions(lesion)[0][lesion]
    return np.bincount(numbers)[numbers].astype(np.int32)


def stored_scan(scan: LabelledScan, folder: Path) -> LabelledScan:
    """The same scan with its volumes in files of `folder`: memory then does not grow with the number of scans."""
    folder.mkdir(parents=True)
    volume = stored_volume(scan.volume, folder / "images.npy")
    return replace(scan, volume=volume, labels=stored_volume(scan.labels, folder / "labels.npy"))


def pool(parts: list[np.ndarray]) -> np.ndarray:
    """Voxels of all scans in one int16 array [n, 4] (number of the scan, x, y, z) from one [n, 3] per scan."""
    rows = [np.column_stack([np.full(len(part), number, np.int16), part]) for number, part in enumerate(parts)]
    return np.concatenate(rows) if rows else np.zeros((0, 4), np.int16)


def draw(pooled: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """`wanted` rows of a non-empty array: every row equally often, the remainder at random without repetition."""
    rounds, rest = divmod(wanted, len(pooled))
    chosen = np.concatenate([np.tile(np.arange(len(pooled)), rounds), rng.choice(len(pooled), rest, replace=False)])
    return pooled[chosen]


def draw_by_weight(scans: Sequence[LabelledScan], pooled: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """`wanted` rows of a non-empty pool, as `draw` takes them, or by the weights of their scans where these differ."""
    weights = np.array([scan.weight for scan in scans], float)
    if np.ptp(weights) == 0:
        return draw(pooled, wanted, rng)
    ends = _ends(pooled, len(scans))
    return _draw_of_scans(pooled, ends, weights * np.diff(ends), wanted, rng)


def draw_by_scan(scans: Sequence[LabelledScan], pooled: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """`wanted` rows of a non-empty pool: a scan in proportion to its weight, then any of its rows."""
    ends = _ends(pooled, len(scans))
    return _draw_of_scans(pooled, ends, _weights(scans, ends), wanted, rng)


def draw_by_lesion(scans: Sequence[LabelledScan], pooled: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """`wanted` rows of the pool of all lesion voxels: a scan by its weight, a lesion of it by size, any voxel of that.

    Raises ValueError when the pool is another.
    """
    ends = _ends(pooled, len(scans))
    odds = np.concatenate([scan.lesion_sizes for scan in scans]) ** (blocks.LESION_SIZE_POWER - 1.0)
    if len(odds) != len(pooled):
        raise ValueError(f"a pool of {len(pooled)} voxels, but lesions of {len(odds)}")
    cumulative = np.concatenate([[0.0], np.cumsum(odds)])
    weights = _weights(scans, ends)
    numbers = rng.choice(len(scans), wanted, p=weights / weights.sum())
    first, after = ends[numbers], ends[numbers + 1]
    rows = np.searchsorted(cumulative, rng.uniform(cumulative[first], cumulative[after]), side="right") - 1
    return np.asarray(pooled[np.clip(rows, first, after - 1)])


def _ends(pooled: np.ndarray, scans: int) -> np.ndarray:
    """Where the rows of each scan begin in a pool sorted by scan, and where the last ones end; int [scans + 1]."""
    # Of the pool's own type, or all of it would be converted.
    return np.searchsorted(pooled[:, 0], np.arange(scans + 1, dtype=pooled.dtype))


def _weights(scans: Sequence[LabelledScan], ends: np.ndarray) -> np.ndarray:
    """The weights of the scans that have rows in a pool, 0 of the others; float [scans]."""
    return np.array([scan.weight for scan in scans]) * (np.diff(ends) > 0)


def _draw_of_scans(pooled: np.ndarray, ends: np.ndarray, odds: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """`wanted` rows of a pool whose scans lie between `ends` [scans + 1]: a scan by its odds [scans], then any of its rows."""
    numbers = rng.choice(len(odds), wanted, p=odds / odds.sum())
    return np.asarray(pooled[rng.integers(ends[numbers], ends[numbers + 1])])


def draw_epoch(
    scans: Sequence[LabelledScan], lesion: np.ndarray, healthy: np.ndarray, config: CascadeConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One epoch's voxels [n, 4] and labels uint8 [n], lesion and not as configured, in random order; both pools hold a voxel.

    Patches are drawn as published, every voxel alike; blocks so that scans with few lesions are seen as often as others, and
    small lesions oftener than their voxels would be. The pool `lesion` holds all lesion voxels, `healthy` is sorted by scan.
    """
    of_lesions, of_others = (draw_by_lesion, draw_by_scan) if config.in_blocks else (draw_by_weight, draw_by_weight)
    parts = [of_lesions(scans, lesion, config.lesions_per_epoch, rng), of_others(scans, healthy, config.negatives_per_epoch, rng)]
    labels = np.repeat(np.array([1, 0], np.uint8), [len(part) for part in parts])
    order = rng.permutation(len(labels))
    return np.concatenate(parts)[order], labels[order]


def gather_pooled(scans: list[LabelledScan], voxels: np.ndarray) -> np.ndarray:
    """Patches [n, 11, 11, 11, contrast] of pooled voxels [n, 4], in their order."""
    patches = np.empty((len(voxels), PATCH, PATCH, PATCH, scans[0].volume.data.shape[-1]), np.float32)
    # Neighbours one after the other: what they share is then still in the processor's cache.
    order = np.lexsort(voxels.T[::-1])
    for number in np.unique(voxels[:, 0]):
        rows = order[voxels[order, 0] == number]
        patches[rows] = gather(scans[number].volume, voxels[rows, 1:])
    return patches


def gather_blocks(
    scans: Sequence[LabelledScan] | Mapping[int, LabelledScan],
    voxels: np.ndarray,
    block_of: Callable[..., tuple[np.ndarray, np.ndarray]],
    *more: Sequence[Any],
    each: Callable[..., Iterable[Any]] = map,
) -> tuple[np.ndarray, np.ndarray]:
    """Blocks [n, x, y, z, contrast] around pooled voxels [n, 4], and their classes uint8 [n, x, y, z], as `block_of` says.

    `block_of` gets data and labels of the scan, the place in them, and its own of each sequence in `more`. `each` is `map`, or
    what does the same side by side.
    """

    def block(voxel: np.ndarray, *own: Any) -> tuple[np.ndarray, np.ndarray]:
        scan = scans[int(voxel[0])]
        return block_of(scan.volume.data, scan.labels.data, scan.volume.places(voxel[1:]), *own)

    images, classes = zip(*each(block, voxels, *more), strict=True)
    return np.stack(images), np.stack(classes)


def healthy_part(scan: LabelledScan, scans: int, rng: np.random.Generator) -> np.ndarray:
    """The healthy candidates of a scan in a random box, whose volume times the number of scans is about two brains.

    The box lies inside the candidates' bounding box, so that with more than two scans their middle is looked at more than their
    rim. With the same chance everywhere networks were no better (docs/results.md).
    """
    if not len(scan.healthy):
        return scan.healthy
    low, high = scan.healthy.min(axis=0), scan.healthy.max(axis=0) + 1
    side = np.ceil((high - low) * min(1.0, 2.0 / scans) ** (1 / 3)).astype(int)
    corner = rng.integers(low, high - side + 1)
    return scan.healthy[((scan.healthy >= corner) & (scan.healthy < corner + side)).all(axis=1)]


def hard_negatives(
    network: keras.Model, scans: list[LabelledScan], wanted: int, config: CascadeConfig, rng: np.random.Generator
) -> np.ndarray:
    """CNN2's pool of negatives [n, 4]: healthy candidates that CNN1 takes for lesion.

    The network dense looks at a part of each scan, the smaller the more there are. Where these are fewer than `wanted`,
    bright voxels (normalised FLAIR above `fallback_flair_z`) are added at random up to that number, and the pool of patches has
    twice as many rows of both; if there is none either, all candidates are the pool.
    """
    mined = []
    per_scan = max(1, config.mined_per_negative * wanted // len(scans))
    for scan in scans:
        if config.in_blocks:
            seen = healthy_part(scan, len(scans), rng)
        else:
            seen = scan.healthy[rng.permutation(len(scan.healthy))[:per_scan]]
        mined.append(seen[score(network, scan.volume, seen) > config.cnn1_threshold])
    found = pool(mined)
    missing = wanted - len(found)
    if missing > 0:
        spare = pool([scan.healthy[scan.volume.flair_at(scan.healthy) > config.fallback_flair_z] for scan in scans])
        # Patches are drawn without repetition: all of so small a pool would come in every epoch. Twice of everything leaves a
        # choice, and what was mined its share.
        times = 1 if config.in_blocks else 2
        found = np.concatenate([*[found] * times, spare[rng.permutation(len(spare))[: times * missing]]])
        found = found[np.argsort(found[:, 0], kind="stable")]
    return found if len(found) else pool([scan.healthy for scan in scans])
