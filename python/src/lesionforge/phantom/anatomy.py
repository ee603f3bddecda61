"""The template head every phantom is deformed from: tissues, skull and scalp, and the zones where lesions may lie."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage

from lesionforge.images import voxel_volume_mm3
from lesionforge.images.template import Template

# Millimetres outwards from the (closed) brain surface.
SUBARACHNOID_MM = 1.5
SKULL_MM = 6.0
SCALP_MM = 5.5
SHELL_SPACING_MM = 2.0
# Lesion centres lie on every second voxel of the template grid: near enough, and eight times faster.
ZONE_STEP = 2
SHELL_PADDING_MM = (30, 34, 44)


@dataclass(frozen=True)
class Anatomy:
    """Volumes of the template head.

    On the 1 mm template grid [x, y, z], cut down to the brain: `tissues` float32 [3, x, y, z] (CSF, GM, WM; sum 1 in the
    brain, 0 outside), `texture` (what the T1w template holds beyond its tissue means, 0 outside). On the wider `shell_affine`
    grid of 2 mm, in mm: `brain_distance` (outwards from the brain surface, negative inside) and `skin_depth` (inwards from
    the skin). `zones` holds voxel indices [n, 3] of the template grid where lesion centres may lie, `ventricle_distance`
    is in mm, on every ZONE_STEP-th voxel of it.
    """

    affine: np.ndarray
    tissues: np.ndarray
    texture: np.ndarray
    shell_affine: np.ndarray
    brain_distance: np.ndarray
    skin_depth: np.ndarray
    zones: dict[str, np.ndarray]
    ventricle_distance: np.ndarray


def build_anatomy(template: Template) -> Anatomy:
    """The template head from the 1 mm template."""
    bounds = ndimage.find_objects(template.brain.astype(np.uint8))[0]
    box = tuple(slice(max(side.start - 3, 0), side.stop + 3) for side in bounds)
    affine = template.affine @ nib.affines.from_matvec(np.eye(3), [side.start for side in box])
    brain, t1w = template.brain[box], template.t1w[box]
    tissues = np.stack([template.csf[box], template.gm[box], template.wm[box]]).astype(np.float32)
    means = np.array([np.average(t1w, weights=tissue) for tissue in tissues], np.float32)
    texture = np.where(brain, t1w - np.einsum("c,cxyz->xyz", means, tissues), 0).astype(np.float32)
    shell_affine, brain_distance, skin_depth = head_shell(brain, affine)
    zones, ventricle_distance = lesion_zones(tissues, brain, affine)
    return Anatomy(affine, tissues, texture, shell_affine, brain_distance, skin_depth, zones, ventricle_distance)


def signed_distance(mask: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Distance in mm to the surface of a bool mask [x, y, z]: positive outside, negative inside; float32."""
    outside = ndimage.distance_transform_edt(~mask)
    inside = ndimage.distance_transform_edt(mask)
    return ((outside - inside) * spacing_mm).astype(np.float32)


def head_shell(brain: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Brain distance and skin depth (mm, float32 [x, y, z] on a padded 2 mm grid) around a 1 mm brain mask.

    The head is the closed brain, grown by skull and scalp, with an ellipsoid for the face and a column for the neck.
    Returns (affine, brain distance, skin depth).
    """
    step = int(SHELL_SPACING_MM)
    pad = np.array(SHELL_PADDING_MM) // step
    coarse = np.pad(brain[::step, ::step, ::step], [(n, n) for n in pad])
    shell_affine = affine @ np.diag([step, step, step, 1.0])
    shell_affine[:3, 3] -= pad * SHELL_SPACING_MM
    closing_mm = 12.0
    grown = ndimage.distance_transform_edt(~coarse) * SHELL_SPACING_MM < closing_mm
    closed = ndimage.distance_transform_edt(grown) * SHELL_SPACING_MM > closing_mm
    brain_distance = ndimage.gaussian_filter(signed_distance(closed | coarse, SHELL_SPACING_MM), 1.0)
    edges = zip(shell_affine[:3, 3], coarse.shape, strict=True)
    x, y, z = np.meshgrid(*[start + SHELL_SPACING_MM * np.arange(n) for start, n in edges], indexing="ij", sparse=True)
    face = (x / 62) ** 2 + ((y - 28) / 68) ** 2 + ((z + 62) / 58) ** 2 < 1
    neck = ((x / 58) ** 2 + ((y + 42) / 56) ** 2 < 1) & (z < -30)
    head = (brain_distance < SUBARACHNOID_MM + SKULL_MM + SCALP_MM) | face | neck
    skin_depth = -ndimage.gaussian_filter(signed_distance(head, SHELL_SPACING_MM), 1.5)
    return shell_affine, brain_distance, skin_depth


def lateral_ventricles(csf: np.ndarray, depth_mm: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The lateral ventricles (bool [x, y, z]): CSF in pieces of more than 1 ml, 22 mm deep, wholly on one side."""
    deep = (csf > 0.5) & (depth_mm > 22)
    labels, _ = ndimage.label(deep)
    ventricles = np.zeros(csf.shape, bool)
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        left, right = affine[0, 3] + affine[0, 0] * np.array([box[0].start, box[0].stop - 1])
        piece = labels[box] == number
        if piece.sum() * voxel_volume_mm3(affine) > 1000 and left * right > 0:
            ventricles[box] |= piece
    return ventricles


def lesion_zones(tissues: np.ndarray, brain: np.ndarray, affine: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Where multiple sclerosis puts lesions, by name, as voxel indices [n, 3]; and the distance from the ventricles in mm.

    Periventricular: white matter 2 to 6 mm from a lateral ventricle. Juxtacortical: 2 to 5 mm from cortex. Deep: at least
    9 mm from the ventricles and 6 mm from cortex. All lie above the brain stem and cerebellum.
    The distance is given on every second voxel only.
    """
    csf, gm, wm = tissues
    depth_mm = ndimage.distance_transform_edt(brain)
    # Only at 1 mm does the septum part the two ventricles.
    ventricles = lateral_ventricles(csf, depth_mm, affine)
    depth_mm, ventricles, gm, wm = (volume[::ZONE_STEP, ::ZONE_STEP, ::ZONE_STEP] for volume in (depth_mm, ventricles, gm, wm))
    affine = affine @ np.diag([ZONE_STEP, ZONE_STEP, ZONE_STEP, 1])
    ventricle_distance = (ndimage.distance_transform_edt(~ventricles) * ZONE_STEP).astype(np.float32)
    cortex = (gm > 0.5) & (depth_mm < 18)
    cortex_distance = ndimage.distance_transform_edt(~cortex) * ZONE_STEP
    height = affine[2, 3] + affine[2, 2] * np.arange(wm.shape[2])
    side = np.abs(affine[0, 3] + affine[0, 0] * np.arange(wm.shape[0]))[:, None, None]
    # The corpus callosum's midline and everything below the temporal horns stay free.
    white = (wm > 0.75) & (height > -12) & (side > 6)
    zones = {
        "periventricular": white & (ventricle_distance >= 2) & (ventricle_distance <= 6),
        "juxtacortical": white & (cortex_distance >= 2) & (cortex_distance <= 5) & (ventricle_distance > 9),
        "deep": white & (ventricle_distance >= 9) & (cortex_distance > 6),
    }
    return {name: np.argwhere(zone) * ZONE_STEP for name, zone in zones.items()}, ventricle_distance
