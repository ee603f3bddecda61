"""Lesions: drawn as noisy ellipsoids, then laid into the white matter of the template head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lesionforge.phantom.anatomy import ZONE_STEP, Anatomy

ZONE_SHARES = {"periventricular": 0.45, "juxtacortical": 0.25, "deep": 0.30}
LARGEST_ML = {"periventricular": 6.0, "juxtacortical": 1.2, "deep": 2.5}


@dataclass(frozen=True)
class LesionSpec:
    """One lesion: an ellipsoid of revolution in template voxels (1 mm).

    `centre` is a voxel index, `axis` the unit vector of its long axis, `elongation` the long over the short axis,
    `volume_ml` its volume before it is cut back to white matter, `roughness` how far its surface wanders, `edge_mm` the width
    of its soft edge; `flair` and `t1w` are its signals relative to white matter, `core` how much they deepen to its middle.
    """

    zone: str
    centre: tuple[int, int, int]
    axis: tuple[float, float, float]
    elongation: float
    volume_ml: float
    roughness: float
    edge_mm: float
    flair: float
    t1w: float
    core: float

    @property
    def short_radius_mm(self) -> float:
        """Radius across the long axis, in mm."""
        return float((3000 * self.volume_ml / (4 * np.pi * self.elongation)) ** (1 / 3))


def draw_lesions(rng: np.random.Generator, anatomy: Anatomy) -> list[LesionSpec]:
    """Draw 8 to 25 lesions whose log-normal volumes add up to 12 to 32 ml, of which white matter holds about two thirds."""
    count = int(rng.integers(8, 26))
    load_ml = float(np.exp(rng.uniform(np.log(12), np.log(32))))
    names = list(ZONE_SHARES)
    chosen = rng.choice(len(names), size=count, p=list(ZONE_SHARES.values()))
    volumes = np.exp(rng.normal(0, 0.9, count))
    volumes *= load_ml / volumes.sum()
    lesions: list[LesionSpec] = []
    for volume, number in sorted(zip(volumes, chosen, strict=True), reverse=True):
        zone = names[number]
        volume_ml = float(np.clip(volume, 0.08, LARGEST_ML[zone]))
        elongation = float(rng.uniform(1.3, 2.2) if zone == "periventricular" else rng.uniform(1.0, 1.6))
        radius = (3000 * volume_ml / (4 * np.pi)) ** (1 / 3)
        centre = draw_centre(rng, anatomy.zones[zone], lesions, radius)
        flair = float(rng.uniform(1.5, 2.1))
        lesions.append(
            LesionSpec(
                zone=zone,
                centre=(int(centre[0]), int(centre[1]), int(centre[2])),
                axis=draw_axis(rng, zone, anatomy.ventricle_distance, centre),
                elongation=elongation,
                volume_ml=volume_ml,
                roughness=float(rng.uniform(0.15, 0.3)),
                edge_mm=float(rng.uniform(1.0, 2.5)),
                flair=flair,
                t1w=float(rng.uniform(0.45, 0.75)),
                core=float(rng.uniform(0.05, 0.2)),
            )
        )
    return lesions


def draw_centre(rng: np.random.Generator, zone: np.ndarray, placed: list[LesionSpec], radius_mm: float) -> np.ndarray:
    """One voxel index out of a zone [n, 3], clear of the lesions already placed where the zone has room for that."""
    free = np.ones(len(zone), bool)
    for lesion in placed:
        reach = lesion.short_radius_mm * lesion.elongation ** (1 / 3) + radius_mm + 2
        free &= np.linalg.norm(zone - np.array(lesion.centre), axis=1) > reach
    room = zone[free] if free.any() else zone
    return room[rng.integers(len(room))]


def draw_axis(
    rng: np.random.Generator, zone: str, ventricle_distance: np.ndarray, centre: np.ndarray
) -> tuple[float, float, float]:
    """The long axis: any direction; periventricular lesions point away from the ventricle (Dawson's fingers)."""
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    if zone == "periventricular":
        box = tuple(slice(index // ZONE_STEP - 1, index // ZONE_STEP + 2) for index in centre)
        away = np.array([slope[1, 1, 1] for slope in np.gradient(ventricle_distance[box])])
        axis = away / max(np.linalg.norm(away), 1e-6) + 0.3 * axis
        axis /= np.linalg.norm(axis)
    return float(axis[0]), float(axis[1]), float(axis[2])


def lay_lesions(
    lesions: list[LesionSpec], white_matter: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lesion fraction and its FLAIR and T1w signals, each float32 [x, y, z] on the template grid.

    `white_matter` is a probability; the fraction never exceeds it, so that lesions end where white matter ends. `noise` has
    mean 0 and standard deviation 1; it roughens surfaces and mottles signals. The signals are relative to white matter and
    multiplied by the fraction, so that interpolating them is right.
    """
    fraction = np.zeros(white_matter.shape, np.float32)
    flair, t1w = np.zeros_like(fraction), np.zeros_like(fraction)
    for lesion in lesions:
        reach = int(np.ceil(lesion.short_radius_mm * lesion.elongation * 1.6 + lesion.edge_mm)) + 1
        centre = np.array(lesion.centre)
        low, high = np.maximum(centre - reach, 0), np.minimum(centre + reach + 1, fraction.shape)
        box = tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))
        offset = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) for s in box], indexing="ij"), -1) - centre
        along = offset @ np.array(lesion.axis)
        across = np.sqrt(np.maximum((offset**2).sum(-1) - along**2, 0))
        radius = np.hypot(across, along / lesion.elongation) * (1 + lesion.roughness * np.clip(noise[box], -2, 2))
        depth_mm = lesion.short_radius_mm - radius
        shape = np.clip(0.5 + depth_mm / lesion.edge_mm, 0, 1) * white_matter[box]
        shape = largest_piece(shape)
        core = lesion.core * np.clip(depth_mm / lesion.short_radius_mm, 0, 1)
        mottle = 0.06 * noise[box]
        stronger = shape > fraction[box]
        fraction[box] = np.where(stronger, shape, fraction[box])
        flair[box] = np.where(stronger, shape * (lesion.flair + core + mottle), flair[box])
        t1w[box] = np.where(stronger, shape * (lesion.t1w - core - mottle / 2), t1w[box])
    return fraction, flair, t1w


def largest_piece(shape: np.ndarray) -> np.ndarray:
    """A lesion's fraction [x, y, z] without the crumbs that noise and thin white matter cut off; zeros when nothing is left."""
    pieces, count = ndimage.label(shape > 0.5)
    if count == 0:
        return np.zeros_like(shape)
    largest = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    # Its soft edge stays with it.
    kept = ndimage.binary_dilation(largest, iterations=2) & (largest | (pieces == 0))
    return np.where(kept, shape, 0)
