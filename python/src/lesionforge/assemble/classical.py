"""The arm `classical`: copies of an annotated scan, turned, bent and changed in intensity, on arrays [x, y, z]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

from lesionforge.images import Scan
from lesionforge.images.geometry import bounding_box
from lesionforge.images.prepared import WM
from lesionforge.register.deformation import warp_tissues
from lesionforge.register.lesions import warp_lesions

# The largest change of each kind; what is drawn is uniform up to it, in both directions where it has two.
ROTATION_DEGREES = 10.0
SCALE = 0.1
SHIFT_MM = 5.0
# Bound of each control point's displacement. Below 0.4 times their spacing a B-spline cannot fold (Choi and Lee 2000,
# doi 10.1006/gmod.2000.0531).
ELASTIC_MM = 10.0
ELASTIC_SPACING_MM = 32.0
GAIN = 0.1
LOG_GAMMA = 0.25
LOG_BIAS = 0.3
BIAS_SPACING_MM = 80.0
NOISE = 0.1
# The intensities that gamma leaves alone, as percentiles of the brain.
GAMMA_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class Intensity:
    """What becomes of one contrast: 1 for `gain` and `gamma` and 0 for the rest is nothing.

    `log_bias` bounds the logarithm of the bias field, `noise` is a standard deviation in normalised intensities.
    """

    gain: float
    gamma: float
    log_bias: float
    bias_seed: int
    noise: float
    noise_seed: int


@dataclass(frozen=True)
class ClassicalDraw:
    """All choices of one copy. Rotations are about the axes x, y and z, in this order; scales and shifts along them.

    `elastic_mm` bounds the displacement along each axis; `software` is the version of lesionforge that drew.
    """

    id: str
    scan: str
    seed: int
    software: str
    flip: bool
    rotation_degrees: tuple[float, float, float]
    scale: tuple[float, float, float]
    shift_mm: tuple[float, float, float]
    elastic_mm: float
    elastic_seed: int
    intensities: dict[str, Intensity]


def draw_classical(
    scan_id: str, source: str, contrasts: Sequence[str], seed: int, software: str, rng: np.random.Generator
) -> ClassicalDraw:
    """Draw the copy `scan_id` of the scan `source`, each contrast with changes of its own."""

    def three(low: float, high: float) -> tuple[float, float, float]:
        x, y, z = rng.uniform(low, high, size=3).tolist()
        return x, y, z

    def seed_of_field() -> int:
        return int(rng.integers(2**31))

    return ClassicalDraw(
        id=scan_id,
        scan=source,
        seed=seed,
        software=software,
        flip=bool(rng.integers(2)),
        rotation_degrees=three(-ROTATION_DEGREES, ROTATION_DEGREES),
        scale=three(1 - SCALE, 1 + SCALE),
        shift_mm=three(-SHIFT_MM, SHIFT_MM),
        elastic_mm=float(rng.uniform(0, ELASTIC_MM)),
        elastic_seed=seed_of_field(),
        intensities={
            name: Intensity(
                gain=float(rng.uniform(1 - GAIN, 1 + GAIN)),
                gamma=float(np.exp(rng.uniform(-LOG_GAMMA, LOG_GAMMA))),
                log_bias=float(rng.uniform(0, LOG_BIAS)),
                bias_seed=seed_of_field(),
                noise=float(rng.uniform(0, NOISE)),
                noise_seed=seed_of_field(),
            )
            for name in contrasts
        },
    )


def apply_classical(draw: ClassicalDraw, scan: Scan, voxel_mm: float) -> Scan:
    """The copy, with all contrasts of `scan`, on its grid, which is isotropic and RAS.

    Each volume is interpolated once: images by cubic splines, the brain mask and the tissues linearly, the lesions one by one,
    so that none splits, merges or vanishes (`warp_lesions`). What leaves the grid is lost. Images stay normalised but for what
    the draw changes, and 0 outside the brain.
    """
    source = source_of_copy(draw, scan.brain, voxel_mm)
    brain = ndimage.map_coordinates(scan.brain.astype(np.float32), source, order=1) > 0.5
    box = bounding_box(brain)
    lesion = np.zeros(brain.shape, bool)
    lesion[box] = (warp_lesions(scan.lesion, source[:, *box]) > 0) & brain[box]
    tissues = np.zeros(brain.shape, np.uint8)
    tissues[box] = np.where(brain[box], warp_tissues(scan.tissues, source[:, *box]), 0)
    tissues[lesion] = WM
    places = source[:, brain]
    copied = {}
    for name, image in scan.images().items():
        copied[name] = np.zeros(brain.shape, np.float32)
        copied[name][brain] = interpolated(image, scan.brain, places)
        copied[name] = changed_intensities(copied[name], brain, draw.intensities[name], voxel_mm)
    return Scan(
        t1w=copied.pop("T1w"),
        flair=copied.pop("FLAIR"),
        brain=brain,
        tissues=tissues,
        lesion=lesion,
        affine=scan.affine,
        further=copied,
        where=draw.id,
    )


def source_of_copy(draw: ClassicalDraw, brain: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Where each voxel of the copy comes from in the scan, in voxels, float32 [3, x, y, z].

    The brain turns about the middle of its box, so that also its mirror image stays on the grid.
    """
    mirror = np.diag([-1.0 if draw.flip else 1.0, 1, 1])
    turned = Rotation.from_euler("xyz", draw.rotation_degrees, degrees=True).as_matrix() @ np.diag(draw.scale) @ mirror
    to_source = np.linalg.inv(turned)
    middle = np.array([(part.start + part.stop - 1) / 2 for part in bounding_box(brain)])
    offset = middle - to_source @ (middle + np.array(draw.shift_mm) / voxel_mm)
    source = np.tensordot(to_source, np.indices(brain.shape, dtype=np.float64), axes=1) + offset[:, None, None, None]
    rng = np.random.default_rng(draw.elastic_seed)
    for axis in range(3):
        source[axis] += draw.elastic_mm / voxel_mm * smooth_field(brain.shape, ELASTIC_SPACING_MM / voxel_mm, rng)
    return source.astype(np.float32)


def smooth_field(shape: tuple[int, ...], spacing: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random field within -1 and 1, float64 [x, y, z]: cubic B-splines with control points `spacing` voxels apart."""
    cells = [int(np.ceil((size - 1) / spacing)) or 1 for size in shape]
    field = rng.uniform(-1, 1, size=[count + 3 for count in cells])
    for size, count in zip(shape, cells, strict=True):
        basis = BSpline.design_matrix(np.arange(size) / spacing, np.arange(-3.0, count + 4), 3).toarray()
        # The axis that is summed over goes, its voxels come last: after three turns the order is x, y, z again.
        field = np.tensordot(field, basis, axes=(0, 1))
    return field


def interpolated(image: np.ndarray, brain: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Values of an image at places [3, n] in voxels, by cubic splines within the range of the brain's values; [n].

    Outside the brain the nearest value of the brain goes on, so that its rim is not mixed with the zeros around it.
    """
    box = tuple(slice(max(part.start - 4, 0), part.stop + 4) for part in bounding_box(brain))
    nearest = ndimage.distance_transform_edt(~brain[box], return_distances=False, return_indices=True)
    whole = image[box][tuple(nearest)]
    local = places - np.array([part.start for part in box], np.float32)[:, None]
    values = ndimage.map_coordinates(whole, local, order=3, mode="nearest")
    return np.asarray(np.clip(values, image[brain].min(), image[brain].max()))


def changed_intensities(image: np.ndarray, brain: np.ndarray, draw: Intensity, voxel_mm: float) -> np.ndarray:
    """The image with its intensities changed inside the brain, float32 [x, y, z], 0 outside.

    Gamma and bias field leave the brain's mean and standard deviation as they were, since a prepared scan is normalised; gain
    and noise come after that and are departures from it.
    """
    values = image[brain].astype(np.float64)
    mean, spread = values.mean(), values.std()
    low, high = np.percentile(values, GAMMA_PERCENTILES)
    share = (values - low) / (high - low)
    share = np.sign(share) * np.abs(share) ** draw.gamma
    field = smooth_field(brain.shape, BIAS_SPACING_MM / voxel_mm, np.random.default_rng(draw.bias_seed))
    share *= np.exp(draw.log_bias * field[brain])
    values = mean + spread * (share - share.mean()) / share.std()
    values = draw.gain * values + draw.noise * np.random.default_rng(draw.noise_seed).standard_normal(values.size)
    out = np.zeros(brain.shape, np.float32)
    out[brain] = values
    return out
