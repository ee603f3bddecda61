"""Skull-stripping programs that a site may already have, called through nipype."""

from __future__ import annotations

import shutil

from lesionforge.errors import InputError

# Engine and the program it calls.
PROGRAMS = {"synthstrip": "mri_synthstrip", "bet": "bet", "hd-bet": "hd-bet", "robex": "runROBEX.sh"}


def require_engine(name: str) -> None:
    """Raise InputError where the program of an engine is not on PATH; engines that call none always pass."""
    program = PROGRAMS.get(name)
    if program is not None and shutil.which(program) is None:
        raise InputError(f"--strip_engine {name}: its program {program} is not on PATH; install it or choose builtin")
