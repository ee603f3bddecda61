"""The profile `reproducible`: two runs, the same bytes."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

SHORT = {"synthetic": 1, "generator_epochs": 1, "generator_tiles": 64, "train_epochs": 1, "train_steps": 8}


def digests(outdir: Path) -> dict[str, str]:
    """SHA-256 of every image of a run, by its path in the results."""
    return {
        str(path.relative_to(outdir)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(outdir.rglob("*.nii.gz"))
    }


# What there is among the results when a head process is killed: while scans are painted, and while networks are trained.
SIGNS = ("synthesize/generator", "assemble/real.tsv")


@pytest.mark.slow
def test_two_runs_give_the_same_scans_and_masks_byte_for_byte(tmp_path, lesionforge, run_nextflow, kill_nextflow):
    """One undisturbed, the other killed with SIGKILL twice on its way."""
    cohort = tmp_path / "cohort"
    subprocess.run([lesionforge, "phantom", cohort, "--patients", "2", "--healthy", "1"], check=True)
    (tmp_path / "short.json").write_text(json.dumps(SHORT))
    options = (
        "--input",
        str(cohort / "cohort.csv"),
        "-params-file",
        str(tmp_path / "short.json"),
        "-profile",
        "test,reproducible",
    )
    killed = tmp_path / "second", tmp_path / "second" / "results"
    kill_nextflow(*killed, SIGNS[0], *options)
    kill_nextflow(*killed, SIGNS[1], *options, "-resume")
    runs = [
        run_nextflow(tmp_path / "first", tmp_path / "first" / "results", *options),
        run_nextflow(*killed, *options, "-resume"),
    ]
    assert [run.code for run in runs] == [0, 0], runs[0].printed + runs[1].printed
    assert "TRAIN_GENERATOR" in runs[1].processes("CACHED") and "REPORT" in runs[1].processes("COMPLETED")
    first, second = (digests(run.outdir) for run in runs)
    assert any("synthesize/sub-syn0001" in name for name in first)
    assert any("segment/augmented" in name for name in first)
    assert first == second
