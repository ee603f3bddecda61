"""What a large cohort costs the head process: memory, and time beside an empty workflow of as many tasks.

    cohort_scale.py [--subjects 1000 ...] --out FOLDER

A stub run of mode segment on N subjects (six tasks each; CHECK truly reads the sheet, all else only makes empty files), then a
workflow of one process with as many tasks that do nothing, both on this machine with the same settings and reports. The time per
task goes from the first task after CHECK to the end of the run, so that start-up and the reading of scans are left out; processor
time counts the head process and all its tasks. With several N the last lines give what a further task costs, start-up left
out, and what 10,000 subjects would take, from a line through the smallest and the largest.
"""

import argparse
import csv
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import nibabel as nib
import numpy as np

from lesionforge import nets
from lesionforge.cascade.card import cascade_entries
from lesionforge.cascade.settings import NETWORKS, CascadeConfig
from lesionforge.images import checksum, write_json

ROOT = Path(__file__).resolve().parents[1]
FAR = 10_000
SETTINGS = """
executor { cpus = 8; memory = '64 GB'; queueSize = 8; pollInterval = '100 ms' }
process {
    cpus = 1
    withLabel: '.*' { cpus = 1; memory = 1.GB; maxForks = 0 }
}
"""
EMPTY = """
process NOTHING {
    input:
    val number

    script:
    'true'
}

workflow {
    NOTHING(channel.of(1..params.tasks))
}
"""


@dataclass(frozen=True)
class Cost:
    """What one run took."""

    tasks: int
    seconds: float  # from the first task after CHECK to the end
    processor_seconds: float
    head_mb: float  # largest resident size of the head process
    files: int  # in the work folder

    def __str__(self) -> str:
        wall, work = (1000 * seconds / self.tasks for seconds in (self.seconds, self.processor_seconds))
        return (
            f"{self.tasks} tasks in {self.seconds:.0f} s, {wall:.0f} ms and {work:.0f} ms of processor time a task;"
            f" head process {self.head_mb:.0f} MB; {self.files / self.tasks:.1f} files a task"
        )


def measure(launch: Path, *arguments: str | Path) -> Cost:
    """Run Nextflow in a new folder, which its trace and work folder stay in."""
    launch.mkdir()
    (launch / "scale.config").write_text(SETTINGS)
    options = ["-c", "scale.config", "-ansi-log", "false", "-with-trace", launch / "trace.tsv"]
    with (launch / "run.log").open("w") as log:
        process = subprocess.Popen([ROOT / "bin/nextflow", "run", *arguments, *options], cwd=launch, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
    ended = time.time()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"the run in {launch} failed, see run.log there")
    with (launch / "trace.tsv").open(newline="") as rows:
        tasks = list(csv.DictReader(rows, delimiter="\t"))
    begun = min(datetime.fromisoformat(task["submit"]).timestamp() for task in tasks if not task["name"].endswith("CHECK"))
    files = sum(len(names) for _, _, names in os.walk(launch / "work"))
    return Cost(len(tasks), ended - begun, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, files)


def write_pipeline(folder: Path) -> None:
    """A copy of the pipeline whose `lesionforge` answers a call for help with nothing and does only `cohort`."""
    folder.mkdir(parents=True)
    for name in ("main.nf", "nextflow.config", "nextflow_schema.json"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "modules", folder / "modules")
    shutil.copytree(ROOT / "python/src", folder / "python/src", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "containers").mkdir()
    shutil.copy(ROOT / "containers/requirements-cpu.txt", folder / "containers")
    program = folder / ".venv/bin/lesionforge"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\ncase "$*" in *--help) ;; *) exec "{ROOT}/.venv/bin/lesionforge" "$@" ;; esac\n')
    program.chmod(0o755)


def write_cohort(folder: Path, subjects: int) -> Path:
    """A sheet of patients, each with tiny scans and a mask of its own."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[3:5, 3:5, 3:5] = 1
    lines = ["subject,role,split,t1w,flair,lesion_mask"]
    for number in range(subjects):
        names = [f"{number}-{kind}.nii.gz" for kind in ("t1w", "flair", "mask")]
        for name in names:
            voxels = mask if "mask" in name else rng.random((8, 8, 8), dtype=np.float32) + 1
            nib.save(nib.Nifti1Image(voxels, np.diag([10.0, 10.0, 10.0, 1.0])), folder / name)
        lines.append(",".join([f"s{number}", "patient", "test", *names]))
    sheet = folder / "cohort.csv"
    sheet.write_text("\n".join(lines) + "\n")
    return sheet


def write_model(folder: Path) -> Path:
    """A cascade's folder with a sound card whose networks are none."""
    folder.mkdir()
    files = [folder / f"{name}.keras" for name in NETWORKS]
    for file in files:
        file.write_bytes(b"weights")
    sums = {"checksums": {file.name: checksum(file) for file in files}}
    write_json(cascade_entries(CascadeConfig(), 1.0) | sums, folder / nets.CARD)
    return folder


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    out = given.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    write_pipeline(out / "pipeline")
    (out / "empty.nf").write_text(EMPTY)
    model = write_model(out / "model")
    costs = []
    for subjects in sorted(given.subjects):
        sheet = write_cohort(out / f"cohort-{subjects}", subjects)
        options = ["--mode", "segment", "--model", model, "--input", sheet, "--outdir", out / f"results-{subjects}"]
        ours = measure(out / f"run-{subjects}", out / "pipeline/main.nf", "-stub-run", *options)
        print(f"{subjects} subjects: {ours}", flush=True)
        reports = ["-with-report", "report.html", "-with-timeline", "timeline.html", "-with-dag", "dag.html"]
        empty = measure(out / f"empty-{subjects}", out / "empty.nf", "--tasks", str(ours.tasks), *reports)
        costs.append((subjects, ours, empty))
        ratio = (ours.seconds / ours.tasks) / (empty.seconds / empty.tasks)
        work = (ours.processor_seconds / ours.tasks) / (empty.processor_seconds / empty.tasks)
        print(f"empty workflow: {empty}")
        print(
            f"a task takes {ratio:.2f} times as long as an empty one (aim: at most 1.2), {work:.2f} times its processor time",
            flush=True,
        )
    (few, small, small_empty), (many, large, large_empty) = costs[0], costs[-1]
    if many > few:
        ours, empty = (
            1000 * (big.processor_seconds - little.processor_seconds) / (big.tasks - little.tasks)
            for big, little in ((large, small), (large_empty, small_empty))
        )
        print(f"a further task costs {ours:.0f} ms of processor time, an empty one {empty:.0f} ms: {ours / empty:.2f} times that")
        steps = (FAR - many) / (many - few)
        print(
            f"{FAR} subjects, extrapolated: head process {large.head_mb + steps * (large.head_mb - small.head_mb):.0f} MB,"
            f" {(large.seconds + steps * (large.seconds - small.seconds)) / 3600:.1f} h of scheduling on this machine,"
            f" {large.files + steps * (large.files - small.files):.0f} files in the work folder"
        )


if __name__ == "__main__":
    main()
