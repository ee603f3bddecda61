"""Nonlinear registration, as `prepare` (roughly, to strip) and `register` need it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ants

SEED = 1
# Iterations of the affine step from coarse to fine; the deformation that follows corrects what the last level would.
AFFINE_ITERATIONS = (1000, 500, 250, 0)
# SyN, with iterations at 4, 2 and 1 times the voxel size of the fixed image; `syn_sampling` is the histogram's bins.
ROUGH = {"reg_iterations": (40, 20, 0)}
# Longer steps and fewer bins than antspyx's own (0.2, 32) bring tissues closer in the same time.
FINE = {"reg_iterations": (40, 20, 10), "grad_step": 0.3, "syn_sampling": 16}


def fix_seed() -> None:
    """Give every registration that follows the same seed for the samples its metric draws.

    antspyx ignores a `random_seed` given to `ants.registration`; without this, two runs differ in every voxel.
    """
    import ants

    ants.config.set_ants_deterministic(on=False, seed_value=SEED)


def affine_and_syn(
    fixed: ants.ANTsImage, moving: ants.ANTsImage, outprefix: str, recipe: dict[str, Any] = ROUGH
) -> tuple[str, str]:
    """Register `moving` onto `fixed`, affine then SyN, by mutual information; files beginning with `outprefix` are written.

    `recipe` is ROUGH or FINE. Returns the paths of the composite transforms moving to fixed and fixed to moving. The seed
    is fixed.
    Source: Avants et al. 2008, doi 10.1016/j.media.2007.06.004.
    """
    import ants

    fix_seed()
    affine = ants.registration(fixed, moving, "Affine", outprefix=outprefix + "affine_", aff_iterations=AFFINE_ITERATIONS)
    syn = ants.registration(
        fixed,
        moving,
        "SyNOnly",
        initial_transform=affine["fwdtransforms"][0],
        outprefix=outprefix + "syn_",
        write_composite_transform=True,
        **recipe,
    )
    return syn["fwdtransforms"], syn["invtransforms"]
