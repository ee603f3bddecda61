"""The pipeline with a stand-in for `lesionforge`, on the SLURM of cluster_of_two.py."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest
from cluster_of_two import wait_for
from pipeline_copy import ROOT, copy_pipeline, traces_in

from lesionforge.cli import main

NEXTFLOW = Path(os.environ.get("NEXTFLOW") or ROOT / "bin" / "nextflow")
ROWS = [("01", "patient", "train"), ("02", "patient", "test"), ("03", "healthy", "train"), ("04", "patient", "train")]
# So impatient because the cluster is this machine alone.
QUICK = """
executor {
    pollInterval = '500 ms'; queueStatInterval = '1 sec'; exitReadTimeout = '8 sec'
    retry.delay = '2 sec'; retry.maxDelay = '5 sec'
}
process {
    cpus = 1
    withLabel: cpu_medium { cpus = 1 }
    withLabel: cpu_large { cpus = 1 }
    withLabel: gpu { cpus = 1 }
}
"""


def run(*command: str | Path, **options: object) -> str:
    """Run a program that must succeed; returns what it prints."""
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, **options).stdout  # type: ignore[call-overload, no-any-return]


@dataclass
class Run:
    """One run of the pipeline, going on or ended."""

    process: subprocess.Popen[str]
    log: Path
    outdir: Path
    earlier: set[Path]  # what was traced before it in its output folder

    def end(self) -> Run:
        """Wait for it."""
        self.process.wait(timeout=1200)
        return self

    def kill(self) -> None:
        """End the head process with SIGKILL."""
        self.process.kill()
        self.process.wait()

    @property
    def code(self) -> int:
        return self.process.returncode

    @property
    def printed(self) -> str:
        return self.log.read_text()

    @property
    def tasks(self) -> list[dict[str, str]]:
        """One row for each task that ended, from the trace."""
        trace = min(traces_in(self.outdir) - self.earlier)
        with trace.open(newline="") as rows:
            return [row | {"process": row["process"].rsplit(":", 1)[1]} for row in csv.DictReader(rows, delimiter="\t")]

    def named(self, *statuses: str) -> Counter[str]:
        """How many tasks of each process have one of the statuses."""
        return Counter(task["process"] for task in self.tasks if task["status"] in statuses)


@dataclass(frozen=True)
class Workshop:
    """A copy of the pipeline that a test may edit, with the stand-in for `lesionforge`, a folder to launch in, and a sheet."""

    folder: Path
    write_sheet: Callable[[Path, list[tuple[str, str, str]]], Path]
    runs: list[Run] = field(default_factory=list)

    @property
    def control(self) -> Path:
        """The folder that tells the stand-in what goes wrong."""
        return self.folder / "control"

    def cause(self, fault: str, what: str, content: str = "") -> Path:
        """Ask the stand-in for a fault; removing the file that is returned takes it back."""
        path = self.control / fault / what
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        return path

    def wait_until_held(self, what: str) -> str:
        """Wait until a command that is to be held has begun; returns the node it is on."""
        held = self.control / "held" / what
        wait_for(lambda: held.exists() or not self.are_going(), what)
        assert held.exists(), f"the run ended before {what}:\n{self.runs[-1].printed}"
        time.sleep(0.3)
        return held.read_text()

    def are_going(self) -> bool:
        """Whether any run of the workshop has not ended."""
        return any(run.process.poll() is None for run in self.runs)

    def log(self) -> Counter[str]:
        """How often each command was done to its end."""
        return Counter((self.control / "log").read_text().splitlines())

    def sheet(self, rows: list[tuple[str, str, str]] = ROWS, name: str = "cohort.csv") -> Path:
        """The sheet of some subjects, their scans beside it; one that is there is left as it is."""
        path = self.folder / "data" / name
        path.parent.mkdir(exist_ok=True)
        return path if path.exists() else self.write_sheet(path, rows)

    def start(
        self,
        *options: str | Path,
        sheet: Path | None = None,
        outdir: str | Path = "results",
        launch: str = "launch",
        env: dict[str, str] | None = None,
    ) -> Run:
        """Start a run and leave it going."""
        at = self.folder / launch
        at.mkdir(exist_ok=True)
        (at / "quick.config").write_text(QUICK)
        out, log = at / outdir, at / f"run-{len(list(at.glob('run-*')))}.log"
        command = [
            NEXTFLOW,
            "run",
            self.folder / "main.nf",
            "-c",
            "quick.config",
            "-ansi-log",
            "false",
            "--synthetic",
            "3",
            "--outdir",
            out,
        ]
        command += ["--input", sheet or self.sheet(), *options]
        earlier = traces_in(out)
        with log.open("w") as printed:
            process = subprocess.Popen(command, cwd=at, env=env, stdout=printed, stderr=subprocess.STDOUT, text=True)
        self.runs.append(Run(process, log, out, earlier))
        return self.runs[-1]

    def edit(self, path: str, content: str) -> None:
        """Append to a file of the copy."""
        with (self.folder / path).open("a") as file:
            file.write(content)


def options_of(command: click.Command, *words: str) -> dict[str, dict[str, list[str]]]:
    """By command: the options that it knows, and those that it must have."""
    options = [option for option in command.params if isinstance(option, click.Option)]
    known = [name for option in options for name in (*option.opts, *option.secondary_opts)]
    found = {" ".join(words): {"known": known, "required": [option.opts[0] for option in options if option.required]}}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found |= options_of(command.get_command(context, name) or command, *words, name)
    return found


@pytest.fixture(scope="session")
def make_workshop(
    tmp_path_factory: pytest.TempPathFactory, sheet_writer: Callable[..., Path]
) -> Iterator[Callable[[], Workshop]]:
    """A function that makes a workshop; no run outlives the tests."""
    made, options = [], json.dumps(options_of(main))

    def make() -> Workshop:
        folder = tmp_path_factory.mktemp("workshop")
        real = ROOT / ".venv" / "bin" / "lesionforge"
        program = f'#!/bin/sh\nexec "{sys.executable}" -S -E "{folder}/stand_in.py" "{folder}/control" "{real}" "$@"\n'
        copy_pipeline(folder, program)
        shutil.copy(Path(__file__).parent / "stand_in.py", folder)
        (folder / "options.json").write_text(options)
        (folder / "control").mkdir()
        (folder / "control" / "log").touch()
        made.append(Workshop(folder, sheet_writer))
        return made[-1]

    yield make
    for run in [run for workshop in made for run in workshop.runs if run.process.poll() is None]:
        run.kill()


@pytest.fixture(scope="session")
def shared(make_workshop: Callable[[], Workshop]) -> Workshop:
    """The workshop of the tests that edit nothing in it."""
    return make_workshop()


@pytest.fixture(scope="session")
def undisturbed(shared: Workshop) -> Run:
    """A run to which nothing happens, on this machine without SLURM."""
    run = shared.start(launch="undisturbed").end()
    assert run.code == 0, run.printed
    return run


@pytest.fixture
def workshop(make_workshop: Callable[[], Workshop]) -> Workshop:
    """A workshop of a test's own."""
    return make_workshop()


def results(outdir: Path) -> dict[str, str]:
    """SHA-256 of every file of the results by its path, hidden ones too; what Nextflow writes about the run is left out."""
    files = [path for path in sorted(outdir.rglob("*")) if path.is_file() and "pipeline_info" not in path.parts]
    return {str(path.relative_to(outdir)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="session")
def digests() -> Callable[[Path], dict[str, str]]:
    """`results`, for tests."""
    return results


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 260 MB."""
    if os.geteuid() != 0:
        pytest.skip("THE TESTS OF A FULL DISK ARE SKIPPED: only root can mount a small file system.")
    disk = tmp_path / "small"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=260m", "tmpfs", disk)
    yield disk
    run("umount", "--lazy", disk)
