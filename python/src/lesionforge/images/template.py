"""The template: ICBM 152 2009a (symmetric, nonlinear), as nilearn carries it; nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np


@dataclass(frozen=True)
class Template:
    """Volumes [x, y, z] of the template: `t1w` 0..1 without skull, `brain` bool, tissue priors that add up to 1 in the brain.

    The priors are read when they are first asked for.
    """

    voxel_mm: int
    t1w: np.ndarray
    brain: np.ndarray
    affine: np.ndarray

    @property
    def csf(self) -> np.ndarray:
        """Prior of cerebrospinal fluid."""
        return self._priors[0]

    @property
    def gm(self) -> np.ndarray:
        """Prior of grey matter."""
        return self._priors[1]

    @property
    def wm(self) -> np.ndarray:
        """Prior of white matter."""
        return self._priors[2]

    @cached_property
    def _priors(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        from nilearn import datasets

        gm = datasets.load_mni152_gm_template(resolution=self.voxel_mm).get_fdata(dtype=np.float32).clip(0, 1) * self.brain
        wm = datasets.load_mni152_wm_template(resolution=self.voxel_mm).get_fdata(dtype=np.float32).clip(0, 1) * self.brain
        csf = (self.brain - gm - wm).clip(0, 1)
        total = np.where(self.brain, gm + wm + csf, 1)
        return csf / total, gm / total, wm / total


@cache
def load_template(voxel_mm: int) -> Template:
    """The template at an isotropic voxel size in whole millimetres, 1 or more; do not change its arrays, they are shared."""
    from nilearn import datasets

    t1w_image = datasets.load_mni152_template(resolution=voxel_mm)
    brain = datasets.load_mni152_brain_mask(resolution=voxel_mm).get_fdata() > 0.5
    return Template(voxel_mm, t1w_image.get_fdata(dtype=np.float32), brain, t1w_image.affine)
