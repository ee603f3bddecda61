"""Skull-stripping programs that a site may already have, called through nipype."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from lesionforge.errors import InputError

if TYPE_CHECKING:
    import numpy as np

# Engine and the program it calls.
PROGRAMS = {"synthstrip": "mri_synthstrip", "bet": "bet", "hd-bet": "hd-bet", "robex": "runROBEX.sh"}
# How each is called, HD-BET in its version 2. BET has an interface of nipype's own. Masks are read, not stripped scans: a
# program may leave another background than 0 around a brain, and a brain has voxels of 0.
ARGUMENTS = {
    "synthstrip": "-i head.nii.gz -o brain.nii.gz -m brain_mask.nii.gz",
    "hd-bet": "-i head.nii.gz -o brain.nii.gz -device cpu --disable_tta --save_bet_mask --no_bet_image",
    "robex": "head.nii.gz brain.nii.gz brain_mask.nii.gz",
}
MASKS = {"hd-bet": "brain_bet.nii.gz"}
NAMES = ("builtin", *PROGRAMS, "given")


def require_engine(name: str) -> None:
    """Raise InputError where the program of an engine is not on PATH; engines that call none always pass."""
    program = PROGRAMS.get(name)
    if program is not None and shutil.which(program) is None:
        raise InputError(f"--strip_engine {name}: its program {program} is not on PATH; install it or choose builtin")


def brain_by_engine(name: str, scan: str | Path, folder: str | Path) -> np.ndarray:
    """The brain of a scan by an external engine, on the scan's own grid; bool [x, y, z].

    The program works in `folder` on a copy with a plain name, because nipype hands command lines to a shell. A mask on a grid
    of its own, as of a program that turns the axes, is brought to the scan's. Raises InputError where the program is missing,
    fails, or writes no brain on that grid.
    """
    import nibabel as nib
    from nipype.interfaces.base import CommandLine
    from nipype.interfaces.fsl import BET

    from lesionforge.images import read_image, read_mask, resample, same_grid

    require_engine(name)
    head = Path(folder) / "head.nii.gz"
    image = read_image(scan)
    affine = image.affine
    # Both forms say the same, whichever a program looks at; but a qform cannot hold a shear.
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    nib.save(image, head)
    if name == "bet":
        command = BET(in_file=str(head), out_file="brain.nii.gz", robust=True, mask=True, output_type="NIFTI_GZ")
    else:
        command = CommandLine(command=PROGRAMS[name], args=ARGUMENTS[name])
    command.terminal_output = "allatonce"
    # nipype raises where BET fails, but for no exit code of a plain command line.
    runtime = command.run(cwd=str(folder), ignore_exception=True).runtime
    mask = Path(folder) / MASKS.get(name, "brain_mask.nii.gz")
    if runtime.returncode != 0 or not mask.is_file():
        said = (f"{runtime.stdout}\n{runtime.stderr}".strip() or "it gave no reason").splitlines()[-1]
        raise InputError(f"{scan}: {PROGRAMS[name]} failed ({said}); run it by hand on this scan or choose builtin")
    brain, own = read_mask(mask)
    if not any(same_grid(brain.shape, own, image.shape, form) for form in (affine, image.get_qform())):
        brain = resample(brain, own, (image.shape, affine)) >= 0.5
    if not brain.any() or brain.all():
        raise InputError(f"{scan}: {PROGRAMS[name]} wrote no brain on the scan's grid; look at the scan or choose builtin")
    return brain
