"""One phantom head: what is drawn for it, and its maps and its deformation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import nibabel as nib
import numpy as np
from scipy import ndimage

from lesionforge.phantom.anatomy import Anatomy
from lesionforge.phantom.lesions import LesionSpec, draw_lesions, lay_lesions

CONTROL_SPACING_MM = 40
FIELD_SPACING_MM = 4
FIELD_REACH_MM = 160


@dataclass(frozen=True)
class ScanSpec:
    """One acquisition: signal of white matter, noise as a share of it, bias field coefficients [9] and peak (log units)."""

    white_matter: float
    noise: float
    bias: list[float]
    bias_peak: float
    noise_seed: int


@dataclass(frozen=True)
class FurtherSpec:
    """Another contrast than T1w and FLAIR: how the head lay in it against the T1w, its slices' tilt, the acquisition."""

    motion_rotation: list[float]
    motion_shift: list[float]
    tilt_degrees: float
    scan: ScanSpec


@dataclass(frozen=True)
class HeadSpec:
    """Everything drawn for one subject.

    Rotations in degrees about x, y, z; shifts in mm; `scale` per axis, subject to template. The displacement and the noise
    maps are drawn from their own seeds. `motion_*` is how the head lay in the FLAIR against the T1w, `tilt_degrees` how the
    FLAIR's slices are inclined. `further` holds the contrasts besides these, by name.
    """

    rotation: list[float]
    shift: list[float]
    scale: list[float]
    displacement_mm: float
    displacement_seed: int
    folding_seed: int
    lesion_seed: int
    motion_rotation: list[float]
    motion_shift: list[float]
    tilt_degrees: float
    t1w: ScanSpec
    flair: ScanSpec
    lesions: list[LesionSpec]
    further: dict[str, FurtherSpec] = field(default_factory=dict)


def draw_head(rng: np.random.Generator, anatomy: Anatomy, with_lesions: bool, further: Sequence[str] = ()) -> HeadSpec:
    """Draw one subject: anatomy, position, contrast and, for a patient, lesions.

    What is drawn for further contrasts is drawn last, so that they change nothing else.
    """

    def seed() -> int:
        return int(rng.integers(2**31))

    def scan(low: float, high: float) -> ScanSpec:
        return ScanSpec(
            white_matter=float(rng.uniform(low, high)),
            noise=float(rng.uniform(0.02, 0.035)),
            bias=rng.normal(size=9).tolist(),
            bias_peak=float(rng.uniform(0.08, 0.15)),
            noise_seed=seed(),
        )

    return HeadSpec(
        rotation=rng.uniform(-4, 4, 3).tolist(),
        shift=rng.uniform(-4, 4, 3).tolist(),
        scale=rng.uniform(0.95, 1.05, 3).tolist(),
        displacement_mm=float(rng.uniform(1.5, 2.5)),
        displacement_seed=seed(),
        folding_seed=seed(),
        lesion_seed=seed(),
        motion_rotation=rng.uniform(-4, 4, 3).tolist(),
        motion_shift=rng.uniform(-5, 5, 3).tolist(),
        tilt_degrees=float(rng.uniform(-10, 10)),
        t1w=scan(500, 700),
        flair=scan(150, 250),
        lesions=draw_lesions(rng, anatomy) if with_lesions else [],
        further={
            name: FurtherSpec(
                motion_rotation=rng.uniform(-4, 4, 3).tolist(),
                motion_shift=rng.uniform(-5, 5, 3).tolist(),
                tilt_degrees=float(rng.uniform(-10, 10)),
                scan=scan(150, 250),
            )
            for name in further
        },
    )


def rigid(rotation_degrees: list[float], shift_mm: list[float]) -> np.ndarray:
    """A 4 x 4 rigid transform: rotations about x, then y, then z, then the shift."""
    matrix = np.eye(4)
    matrix[:3, :3] = nib.eulerangles.euler2mat(*np.deg2rad(rotation_degrees)[::-1])
    matrix[:3, 3] = shift_mm
    return matrix


@dataclass(frozen=True)
class Head:
    """One subject's continuous head.

    Maps on the template grid (float32): `tissues` [3, x, y, z], `texture`, `lesion` (fraction 0..1), `lesion_flair` and
    `lesion_t1w` (signal times fraction). `to_template` (4 x 4) and then `displacement` [3, x, y, z] in mm, on a 4 mm grid
    with `field_affine`, take a point in T1w world space (RAS, mm) to template world space.
    """

    anatomy: Anatomy
    tissues: np.ndarray
    lesion: np.ndarray
    lesion_flair: np.ndarray
    lesion_t1w: np.ndarray
    to_template: np.ndarray
    displacement: np.ndarray
    field_affine: np.ndarray


def build_head(spec: HeadSpec, anatomy: Anatomy) -> Head:
    """Make the head that a spec describes."""
    tissues = individual_tissues(anatomy.tissues, np.random.default_rng(spec.folding_seed))
    noise = smooth_noise(np.random.default_rng(spec.lesion_seed), tissues.shape[1:], 2.5)
    lesion, lesion_flair, lesion_t1w = lay_lesions(spec.lesions, tissues[2], noise)
    to_template = rigid(spec.rotation, spec.shift) @ np.diag([*spec.scale, 1.0])
    displacement, field_affine = smooth_displacement(np.random.default_rng(spec.displacement_seed), spec.displacement_mm)
    return Head(anatomy, tissues, lesion, lesion_flair, lesion_t1w, to_template, displacement, field_affine)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Gaussian noise smoothed with a Gaussian of `sigma` voxels, mean 0 and standard deviation 1; float32."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap", truncate=3)
    return (noise - noise.mean()) / noise.std()


def individual_tissues(tissues: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn a population's tissue probabilities [3, x, y, z] into those of one head.

    Smooth noise in the log odds decides where the blurred average is undecided, and a steeper softmax sharpens the result.
    """
    brain = tissues.sum(0) > 0
    odds = np.log(tissues[:, brain] + 1e-3)
    for row in (odds[0], odds[2]):
        row += 0.45 * smooth_noise(rng, brain.shape, 2.0)[brain]
    odds = 2.5 * (odds - odds.max(0))
    odds = np.exp(odds)
    out = np.zeros_like(tissues)
    out[:, brain] = odds / odds.sum(0)
    return out


def smooth_displacement(rng: np.random.Generator, amplitude_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """A random cubic-spline displacement [3, x, y, z] in mm (RAS) on a 4 mm grid around the origin, and its affine.

    Its control points, 40 mm apart, have the standard deviation `amplitude_mm`: too far apart for the field to fold.
    """
    points = 2 * FIELD_REACH_MM // CONTROL_SPACING_MM + 1
    control = rng.normal(scale=amplitude_mm, size=(3, points, points, points))
    finer = (points - 1) * (CONTROL_SPACING_MM // FIELD_SPACING_MM) + 1
    field = np.stack([ndimage.zoom(part, finer / points, order=3, mode="nearest") for part in control]).astype(np.float32)
    affine = np.diag([FIELD_SPACING_MM] * 3 + [1.0])
    affine[:3, 3] = -FIELD_REACH_MM
    return field, affine
