"""From a continuous head to the voxels of a T1w, a FLAIR and further contrasts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from lesionforge.phantom.anatomy import SKULL_MM, SUBARACHNOID_MM
from lesionforge.phantom.head import Head, HeadSpec, ScanSpec, rigid

T1W_FIELD_OF_VIEW_MM = (200, 240, 208)
T1W_CENTRE_MM = (0, -16, 2)
FLAIR_FIELD_OF_VIEW_MM = (200, 240, 184)
FLAIR_CENTRE_MM = (0, -16, 5)
SKIN_FAT_MM = 5.0


@dataclass(frozen=True)
class Contrast:
    """Signals relative to white matter: CSF, GM, WM, bone, muscle, fat; and the weight of the template's texture."""

    tissues: tuple[float, float, float]
    bone: float
    muscle: float
    fat: float
    texture: float


T1W = Contrast(tissues=(0.28, 0.68, 1.0), bone=0.10, muscle=0.50, fat=1.20, texture=0.6)
FLAIR = Contrast(tissues=(0.22, 1.25, 1.0), bone=0.08, muscle=0.45, fat=0.85, texture=-0.3)
FURTHER = {
    "T2w": Contrast(tissues=(3.2, 1.45, 1.0), bone=0.08, muscle=0.40, fat=1.10, texture=-0.3),
    "PDw": Contrast(tissues=(1.35, 1.25, 1.0), bone=0.08, muscle=0.60, fat=1.00, texture=-0.2),
}
# Of what a lesion adds to white matter in the FLAIR.
LESION_GAINS = {"T2w": 1.5, "PDw": 0.6}


@dataclass(frozen=True)
class Samples:
    """A head's maps at the voxels of one grid: as in Head, with `brain_distance` and `skin_depth` in mm."""

    tissues: np.ndarray
    texture: np.ndarray
    lesion: np.ndarray
    lesion_flair: np.ndarray
    lesion_t1w: np.ndarray
    brain_distance: np.ndarray
    skin_depth: np.ndarray


def t1w_grid(voxel_mm: float) -> tuple[tuple[int, int, int], np.ndarray]:
    """(shape, affine) of the T1w: isotropic RAS voxels over the head."""
    return centred_grid(np.array(T1W_FIELD_OF_VIEW_MM), np.full(3, voxel_mm), np.eye(3), np.array(T1W_CENTRE_MM))


def flair_grid(voxel_mm: float, tilt_degrees: float) -> tuple[tuple[int, int, int], np.ndarray]:
    """(shape, affine) of the FLAIR: axial slices twice as thick as wide, tilted about x, with axes to A, L and S."""
    axes = rigid([tilt_degrees, 0, 0], [0, 0, 0])[:3, :3] @ np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    x, y, z = FLAIR_FIELD_OF_VIEW_MM
    return centred_grid(np.array([y, x, z]), voxel_mm * np.array([1, 1, 2]), axes, np.array(FLAIR_CENTRE_MM))


def centred_grid(
    extent_mm: np.ndarray, spacing_mm: np.ndarray, axes: np.ndarray, centre_mm: np.ndarray
) -> tuple[tuple[int, int, int], np.ndarray]:
    """(shape, affine) of a grid whose voxel axes are the columns of `axes` and whose middle is `centre_mm`."""
    shape = np.ceil(extent_mm / spacing_mm).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing_mm
    affine[:3, 3] = centre_mm - affine[:3, :3] @ ((shape - 1) / 2)
    return (int(shape[0]), int(shape[1]), int(shape[2])), affine


def lesion_signal(samples: Samples, name: str) -> np.ndarray:
    """Signal times fraction [x, y, z] of the lesions in a further contrast, which follows that in the FLAIR."""
    return samples.lesion + LESION_GAINS[name] * (samples.lesion_flair - samples.lesion)


def sample_head(head: Head, shape: tuple[int, int, int], to_t1w_world: np.ndarray, slices_per_voxel: int = 1) -> Samples:
    """A head's maps on a grid; `to_t1w_world` (4 x 4) takes its voxel indices to T1w world space.

    Each map is interpolated once, linearly. With more than one slice per voxel, the third axis is averaged over that many
    thinner slices, as a thick-slice acquisition does.
    """
    thin_shape = (shape[0], shape[1], shape[2] * slices_per_voxel)
    thin = np.diag([1.0, 1.0, 1 / slices_per_voxel, 1.0])
    thin[2, 3] = (1 / slices_per_voxel - 1) / 2
    world = grid_points(thin_shape, to_t1w_world @ thin)
    template_world = transform(head.to_template, world)
    at_field = transform(np.linalg.inv(head.field_affine), world)
    for axis in range(3):
        template_world[axis] += interpolate(head.displacement[axis], at_field, "nearest")
    in_template = transform(np.linalg.inv(head.anatomy.affine), template_world)
    in_shell = transform(np.linalg.inv(head.anatomy.shell_affine), template_world)

    def voxels(values: np.ndarray) -> np.ndarray:
        return values.reshape(*shape, slices_per_voxel).mean(-1)

    anatomy = head.anatomy
    return Samples(
        tissues=np.stack([voxels(interpolate(tissue, in_template, "constant")) for tissue in head.tissues]),
        texture=voxels(interpolate(anatomy.texture, in_template, "constant")),
        lesion=voxels(interpolate(head.lesion, in_template, "constant")),
        lesion_flair=voxels(interpolate(head.lesion_flair, in_template, "constant")),
        lesion_t1w=voxels(interpolate(head.lesion_t1w, in_template, "constant")),
        brain_distance=voxels(interpolate(anatomy.brain_distance, in_shell, "nearest")),
        skin_depth=voxels(interpolate(anatomy.skin_depth, in_shell, "nearest")),
    )


def grid_points(shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """World coordinates [3, n] of all voxels of a grid, in C order; float32."""
    x, y, z = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape], indexing="ij", sparse=True)
    rows = affine.astype(np.float32)[:3]
    return np.stack([(row[0] * x + row[1] * y + row[2] * z + row[3]).ravel() for row in rows])


def transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a 4 x 4 matrix to points [3, n]; float32."""
    matrix = matrix.astype(np.float32)
    return matrix[:3, :3] @ points + matrix[:3, 3:]


def interpolate(volume: np.ndarray, points: np.ndarray, outside: str) -> np.ndarray:
    """Linear interpolation of a volume at voxel coordinates [3, n]; outside: "constant" (0) or "nearest"."""
    return ndimage.map_coordinates(volume, points, output=np.float32, order=1, mode=outside)


def render(samples: Samples, contrast: Contrast, lesion_signal: np.ndarray, scan: ScanSpec) -> np.ndarray:
    """Signal [x, y, z] of one scan, float32, 0 or more: tissue, lesions, bone, scalp and air, bias field, Rician noise."""
    brain = samples.tissues.sum(0)
    inside = np.einsum("c,cxyz->xyz", np.array(contrast.tissues, np.float32), samples.tissues)
    inside += contrast.texture * samples.texture
    inside = inside * (1 - samples.lesion) + lesion_signal
    rng = np.random.default_rng(scan.noise_seed)
    mottle = ndimage.gaussian_filter(rng.standard_normal(brain.shape, dtype=np.float32), 1.5) * 1.5
    signal = inside + (1 - brain) * shell_signal(samples.brain_distance, samples.skin_depth, contrast, mottle)
    signal *= scan.white_matter * bias_field(brain.shape, scan.bias, scan.bias_peak)
    noise = scan.noise * scan.white_matter * rng.standard_normal((2, *brain.shape), dtype=np.float32)
    return np.hypot(signal + noise[0], noise[1])


def shell_signal(brain_distance: np.ndarray, skin_depth: np.ndarray, contrast: Contrast, mottle: np.ndarray) -> np.ndarray:
    """Signal [x, y, z] outside the brain: CSF, bone, muscle, fat below the skin, air."""

    def beyond(distance_mm: np.ndarray) -> np.ndarray:
        return np.clip(0.5 + distance_mm / 1.5, 0, 1)

    skull_starts = beyond(brain_distance - SUBARACHNOID_MM)
    skull_ends = beyond(brain_distance - SUBARACHNOID_MM - SKULL_MM)
    fat = beyond(SKIN_FAT_MM - skin_depth)
    soft = (contrast.muscle * (1 - fat) + contrast.fat * fat) * (1 + 0.35 * mottle)
    inner = contrast.tissues[0] * (1 - skull_starts) + contrast.bone * skull_starts
    return (inner * (1 - skull_ends) + soft.clip(0) * skull_ends) * beyond(skin_depth)


def bias_field(shape: tuple[int, ...], coefficients: list[float], peak: float) -> np.ndarray:
    """A smooth positive field [x, y, z] of log-polynomials up to order two, between exp(-peak) and exp(peak); float32."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in shape], indexing="ij", sparse=True)
    terms = (x, y, z, x * x, y * y, z * z, x * y, y * z, z * x)
    log_field = np.zeros(shape, np.float32)
    for coefficient, term in zip(coefficients, terms, strict=True):
        log_field += np.float32(coefficient) * term
    middle = (log_field.max() + log_field.min()) / 2
    return np.exp((log_field - middle) * (peak / max(np.abs(log_field - middle).max(), 1e-6)))


@dataclass(frozen=True)
class PhantomScans:
    """One subject's scans and truth.

    On the T1w grid [x, y, z]: `t1w`, `brain` and `lesion` bool, `tissues` uint8 (1 CSF, 2 GM, 3 WM, lesions are WM). `flair` is
    on its own grid; `flair_to_t1w` (4 x 4) takes its world points to T1w world space (RAS, mm). `further` holds image and affine
    of the other contrasts by name, `further_to_t1w` their matrices.
    """

    t1w: np.ndarray
    t1w_affine: np.ndarray
    flair: np.ndarray
    flair_affine: np.ndarray
    flair_to_t1w: np.ndarray
    brain: np.ndarray
    tissues: np.ndarray
    lesion: np.ndarray
    further: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    further_to_t1w: dict[str, np.ndarray] = field(default_factory=dict)


def scan_head(spec: HeadSpec, head: Head, voxel_mm: float) -> PhantomScans:
    """Acquire of one head a T1w of isotropic `voxel_mm`, and a FLAIR and further contrasts of slices twice as thick."""
    shape, affine = t1w_grid(voxel_mm)
    samples = sample_head(head, shape, affine)
    t1w = render(samples, T1W, samples.lesion_t1w, spec.t1w)
    brain = samples.tissues.sum(0) > 0.5
    tissues = np.where(brain, samples.tissues.argmax(0) + 1, 0).astype(np.uint8)
    lesion = samples.lesion > 0.5
    flair_shape, flair_affine = flair_grid(voxel_mm, spec.tilt_degrees)
    flair_to_t1w = rigid(spec.motion_rotation, spec.motion_shift)
    flair_samples = sample_head(head, flair_shape, flair_to_t1w @ flair_affine, slices_per_voxel=2)
    flair = render(flair_samples, FLAIR, flair_samples.lesion_flair, spec.flair)
    further, to_t1w = {}, {}
    for name, own in spec.further.items():
        own_shape, own_affine = flair_grid(voxel_mm, own.tilt_degrees)
        to_t1w[name] = rigid(own.motion_rotation, own.motion_shift)
        own_samples = sample_head(head, own_shape, to_t1w[name] @ own_affine, slices_per_voxel=2)
        further[name] = render(own_samples, FURTHER[name], lesion_signal(own_samples, name), own.scan), own_affine
    return PhantomScans(t1w, affine, flair, flair_affine, flair_to_t1w, brain, tissues, lesion, further, to_t1w)
