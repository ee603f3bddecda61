"""The click root: one command per stage, each imported only when it is called."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import Any

import click

from lesionforge import __version__
from lesionforge.errors import InputError

# Name: (module that holds the click command of the same name, one line of help), in pipeline order.
COMMANDS = {
    "cohort": ("lesionforge.cohort.command", "Check a samplesheet, split it by subject, plan the synthetic scans."),
    "prepare": ("lesionforge.prepare.command", "Skull-strip, align, classify and normalise one subject."),
    "register": ("lesionforge.register.command", "Register one subject to the template; map patients onto canvases."),
    "synthesize": ("lesionforge.synthesize.command", "Train the generator and paint lesions onto canvases."),
    "assemble": ("lesionforge.assemble.command", "Write the data set of each experiment arm."),
    "train": ("lesionforge.train.command", "Train the two-network cascade on one arm."),
    "segment": ("lesionforge.segment.command", "Segment one prepared subject with a trained cascade."),
    "evaluate": ("lesionforge.evaluate.command", "Measure a lesion mask against a reference; compare arms."),
    "report": ("lesionforge.report.command", "Write one HTML page with tables and figures."),
    "predict": ("lesionforge.segment.predict", "From one subject's raw scans to its lesion mask."),
    "import-nicmslesions": ("lesionforge.train.importing", "Turn your copy of the nicMSlesions weights into a model folder."),
    "fill": ("lesionforge.synthesize.tools", "Fill the lesions of one subject's raw scans, for volumetry."),
    "levels": ("lesionforge.synthesize.tools", "Intensity levels of the hyperintensities of one subject's raw scans."),
    "paint": ("lesionforge.synthesize.tools", "Paint the lesions of a mask onto one subject's raw scans."),
    "phantom": ("lesionforge.phantom.command", "Make a cohort of synthetic heads with known lesions."),
}


class StageGroup(click.Group):
    """A group that knows its commands by name and imports one only when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        # Before a command's module is imported, which may import numpy.
        prepare_environment(ctx.params["threads"], ctx.params["reproducible"])
        try:
            return super().invoke(ctx)
        except InputError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)
        except OSError as error:
            # A full disk, a file where a folder should be, no permission: the user's to mend as well.
            name = error.filename2 or error.filename  # of a copy, the one that is written
            where = f"{name}: " if name else ""
            click.echo(f"Error: {where}{error.strerror or error}; check the path, its permissions and the free space", err=True)
            # No fault of a scan's files: the pipeline skips none for it.
            ctx.exit(os.EX_IOERR if error.errno in (errno.ENOSPC, errno.EDQUOT) else InputError.exit_code)


def prepare_environment(threads: int | None, reproducible: bool) -> None:
    """Set thread counts and switches that the numerical libraries read while they are imported.

    Keras neither reads nor writes a settings file in the home folder, which could change results, and matplotlib keeps
    its font list in our environment.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("NO_ET", "1")
    # As for TensorFlow: memory of a GPU is taken as it is needed, and others can share it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("MPLCONFIGDIR", os.path.join(sys.prefix, ".matplotlib"))  # noqa: PTH118
    os.environ["KERAS_HOME"] = os.path.join(os.devnull, "keras")  # noqa: PTH118
    threads = threads or len(os.sched_getaffinity(0))
    for name in ("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    if reproducible:
        os.environ["LESIONFORGE_REPRODUCIBLE"] = "1"
        os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"


@click.group(cls=StageGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lesionforge")
@click.option("--threads", type=click.IntRange(min=1), default=None, help="CPU threads to use [default: all].")
@click.option(
    "--reproducible",
    is_flag=True,
    help="Same seed, same images and masks: one ITK thread, networks on the CPU alone, deterministic with TensorFlow.",
)
def main(threads: int | None, reproducible: bool) -> None:
    """Make a multiple-sclerosis lesion segmenter out of very few annotated scans."""
