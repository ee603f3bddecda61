"""What the options of all commands share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
OUT = click.option("--out", required=True, type=click.Path(path_type=Path), help="Output folder.")
DEVICE = click.option(
    "--device",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "cpu", "gpu"]),
    help="Where networks are trained; auto takes the GPUs that work, else the CPU.",
)
CHECKPOINT = click.option(
    "--checkpoint",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Folder for the state of the training after each epoch; a training that was stopped goes on from it.",
)
SEED = click.option("--seed", default=1, show_default=True, type=click.IntRange(0, 2**31 - 1), help="Seed of all random draws.")


class FiniteRange(click.FloatRange):
    """A number within limits that is neither NaN, which is within any, nor infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class OwnOptionsGroup(click.Group):
    """A group that is a command itself: its options are for it alone, and not taken for those of a sub-command."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        for param in self.params:
            source = ctx.get_parameter_source(param.name or "")
            if source is click.core.ParameterSource.COMMANDLINE and not ctx.resilient_parsing:
                name = param.opts[-1]
                ctx.fail(f"{name} before {args[0]} is not passed on to it; give the options of {args[0]} after its name.")
        return super().resolve_command(ctx, args)
