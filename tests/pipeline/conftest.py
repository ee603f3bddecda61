"""Runs of the real pipeline with the real Nextflow: a copy of it that a test may edit, and a phantom run shared by all."""

from __future__ import annotations

import csv
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pipeline_copy import ROOT, copy_pipeline, traces_in

from lesionforge.images.template import load_template

# Another Nextflow may be named, to try the pipeline under several versions.
NEXTFLOW = Path(os.environ.get("NEXTFLOW") or ROOT / "bin" / "nextflow")
LESIONFORGE = ROOT / ".venv" / "bin" / "lesionforge"


@dataclass(frozen=True)
class Run:
    """One finished run: exit code, what it printed, its results, and one row for each task from the trace."""

    code: int
    printed: str
    outdir: Path
    tasks: list[dict[str, str]]

    def named(self, process: str) -> list[dict[str, str]]:
        """The tasks of a process, by its own name such as STRIP."""
        return [task for task in self.tasks if task["process"].endswith(f":{process}")]

    def processes(self, *statuses: str) -> set[str]:
        """The names of the processes that have a task with one of the statuses."""
        return {task["process"].rsplit(":", 1)[1] for task in self.tasks if task["status"] in statuses}


def command(pipeline: Path, outdir: Path, *options: str) -> list[str | Path]:
    """The words that run `pipeline`/main.nf."""
    return [NEXTFLOW, "run", pipeline / "main.nf", "-ansi-log", "false", "--outdir", outdir, *options]


def nextflow(pipeline: Path, launch: Path, outdir: Path, *options: str) -> Run:
    """Run `pipeline`/main.nf from the folder `launch`, which keeps its work folder for -resume."""
    launch.mkdir(parents=True, exist_ok=True)
    earlier = traces_in(outdir)
    done = subprocess.run(
        command(pipeline, outdir, *options), cwd=launch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    lines = [line for path in traces_in(outdir) - earlier for line in path.read_text().splitlines()]
    tasks = list(csv.DictReader(lines, delimiter="\t"))
    return Run(done.returncode, done.stdout, outdir, tasks)


@pytest.fixture(scope="session")
def template_masks() -> Callable[[Path, list[str]], Path]:
    """A function (folder, names) that writes lesion masks in template space, each another lesion."""

    def write(folder: Path, names: list[str]) -> Path:
        template = load_template(2)
        for shift, name in enumerate(names):
            mask = np.zeros(template.brain.shape, np.uint8)
            mask[49 + shift : 55 + shift, 50:55, 40:45] = 1
            folder.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(mask, template.affine), folder / f"{name}.nii.gz")
        return folder

    return write


@pytest.fixture(scope="session")
def stub(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """A function (sheet, name of the results folder, options) that makes a stub run of the copied pipeline.

    All share one work folder and resume, so that each starts only what the runs before it did not do.
    """
    launch = tmp_path_factory.mktemp("l'essai")

    def run(sheet: Path, results: str, *options: str) -> Run:
        return nextflow(
            pipeline, launch, launch / results, "--input", str(sheet), "-stub-run", "-resume", "-profile", "test", *options
        )

    return run


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the pipeline whose files a test may edit, in a folder whose name needs quotes.

    Its `lesionforge` is the checkout's, behind a script, which fails for a FLAIR named *broken*, and as if out of memory, the
    first time, for one named *large*; for the quality figures of a scan named *unfit*, as prepare judge does beyond a limit; and
    where lesions would be transplanted onto a canvas named *blank*.
    """
    copy = tmp_path_factory.mktemp("l'atelier")
    program = f"""#!/bin/bash
first="{copy}/first-attempt"
if compgen -G 'flair/*broken*' > /dev/null; then echo 'Error: this scan is broken' >&2; exit 2; fi
if compgen -G 'figures/*unfit*' > /dev/null; then echo 'Error: this scan is beyond a quality limit' >&2; exit 2; fi
if compgen -G 'brightness/*' > /dev/null && compgen -G 'canvas/*blank*' > /dev/null; then
  echo 'Error: this canvas holds no white matter' >&2; exit 2
fi
if compgen -G 'flair/*large*' > /dev/null && [ ! -e "$first" ]; then touch "$first"; exit 137; fi
exec "{LESIONFORGE}" "$@"
"""
    return copy_pipeline(copy, program)


@pytest.fixture(scope="session")
def phantom_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A real run of the whole chain, profile test, on a phantom cohort."""
    folder = tmp_path_factory.mktemp("phantom")
    made = [LESIONFORGE, "phantom", folder / "cohort", "--patients", "3", "--healthy", "1", "--seed", "1"]
    subprocess.run(made, check=True)
    return nextflow(ROOT, folder, folder / "results", "--input", str(folder / "cohort" / "cohort.csv"), "-profile", "test")


@pytest.fixture(scope="session")
def lesionforge() -> Path:
    """The installed command."""
    return LESIONFORGE


@pytest.fixture(scope="session")
def run_nextflow() -> Callable[..., Run]:
    """A function (launch folder, results folder, options) that runs the checkout's own pipeline."""
    return lambda launch, outdir, *options: nextflow(ROOT, launch, outdir, *options)


@pytest.fixture(scope="session")
def kill_nextflow() -> Callable[..., None]:
    """A function (launch and results folder, sign, options) that runs the checkout's pipeline, and kills its head process with
    SIGKILL once the results hold something of the pattern `sign`."""

    def kill(launch: Path, outdir: Path, sign: str, *options: str) -> None:
        launch.mkdir(parents=True, exist_ok=True)
        words = command(ROOT, outdir, *options)
        with (launch / "killed.log").open("w") as log, subprocess.Popen(words, cwd=launch, stdout=log, stderr=log) as process:
            while process.poll() is None and not any(outdir.glob(sign)):
                time.sleep(0.05)
            assert process.poll() is None, (launch / "killed.log").read_text()
            process.kill()

    return kill
