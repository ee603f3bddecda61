"""The template: ICBM 152 2009a (symmetric, nonlinear), as nilearn carries it; nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True)
class Template:
    """Volumes [x, y, z] of the template: `t1w` 0..1 without skull, `brain` bool, tissue priors that add up to 1 in the brain."""

    t1w: np.ndarray
    brain: np.ndarray
    csf: np.ndarray
    gm: np.ndarray
    wm: np.ndarray
    affine: np.ndarray


@cache
def load_template(voxel_mm: int) -> Template:
    """The template at an isotropic voxel size in whole millimetres, 1 or more; do not change its arrays, they are shared."""
    from nilearn import datasets

    t1w_image = datasets.load_mni152_template(resolution=voxel_mm)
    brain = datasets.load_mni152_brain_mask(resolution=voxel_mm).get_fdata() > 0.5
    gm = datasets.load_mni152_gm_template(resolution=voxel_mm).get_fdata(dtype=np.float32).clip(0, 1) * brain
    wm = datasets.load_mni152_wm_template(resolution=voxel_mm).get_fdata(dtype=np.float32).clip(0, 1) * brain
    csf = (brain - gm - wm).clip(0, 1)
    total = np.where(brain, gm + wm + csf, 1)
    t1w = t1w_image.get_fdata(dtype=np.float32)
    return Template(t1w, brain, csf / total, gm / total, wm / total, t1w_image.affine)
