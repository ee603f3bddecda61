"""What a task gets of a file behind a link, where an engine must mount what the link leads to."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pipeline_copy import ROOT, copy_pipeline, start_probe

PROBE = """
include { fileOf } from './modules/script'

workflow {
    file(params.links).listFiles().sort().each { path -> println("${path.name} is ${fileOf(path.toString())}") }
}
"""


def told(folder: Path, links: Path) -> subprocess.CompletedProcess[str]:
    """A start of the probe under the profile of an engine, in a copy of the pipeline."""
    return start_probe(copy_pipeline(folder), PROBE, "-profile", "docker", "--links", links)


def linked(folder: Path, targets: dict[str, Path]) -> Path:
    """A folder of links, by their names, to images in the folders given."""
    (folder / "links").mkdir()
    for name, target in targets.items():
        target.mkdir(parents=True)
        (target / "scan.nii.gz").touch()
        (folder / "links" / f"{name}.nii.gz").symlink_to(target / "scan.nii.gz")
    return folder / "links"


def test_an_engine_mounts_what_a_link_leads_to_but_nothing_that_a_shell_could_misread(tmp_path: Path) -> None:
    annex = tmp_path / "annex"
    unsafe = {"b": annex / "$(touch pwned)", "c": annex / "x\ntouch pwned", "d": annex / "`touch pwned`"}
    links = linked(tmp_path, {"a": annex} | unsafe)
    done = told(tmp_path, links)
    assert done.returncode == 0, done.stdout
    found = dict(line.split(" is ") for line in done.stdout.splitlines() if ".nii.gz is " in line)
    themselves = {f"{name}.nii.gz": str(links / f"{name}.nii.gz") for name in unsafe}
    assert found == {"a.nii.gz": str(annex / "scan.nii.gz")} | themselves


def test_a_model_and_a_work_folder_that_an_engine_or_ants_would_split_are_refused(tmp_path: Path, run_nextflow) -> None:
    (tmp_path / "10:30").mkdir()
    options = ("--input", tmp_path / "none.csv", "--model", tmp_path / "10:30", "-work-dir", tmp_path / "a,b", "-profile")
    with_engine, without = (run_nextflow(tmp_path, tmp_path / "out", *options, one).printed for one in ("docker", "local"))
    refused = "holds ':' or ',', which docker takes for the end of a path; rename it"
    assert f"--model names '{tmp_path}/10:30', which {refused}" in with_engine
    assert f"-work-dir {tmp_path}/a,b {refused}" in with_engine
    assert "none.csv', which does not exist" in without and "the end of a path" not in without
    assert f"-work-dir {tmp_path}/a,b holds one of the characters , [ ] %, at which ANTs breaks; give another." in without


def test_what_comes_too_late_and_what_job_arrays_would_split_is_refused_together(tmp_path: Path, run_nextflow) -> None:
    (tmp_path / "site.config").write_text("params.slurm_time = '2d'\nprofiles { slurm {} }\n")
    options = ("--input", tmp_path, "-work-dir", tmp_path / "a b", "-profile", "slurm", "-c", tmp_path / "site.config")
    printed = run_nextflow(tmp_path, tmp_path / "out", *options).printed
    assert f"-work-dir {tmp_path}/a b holds white space, at which the job arrays of Nextflow break" in printed
    assert "slurm_time in a configuration file comes too late" in printed
    assert "give --slurm_time on the command line" in printed


def test_an_output_folder_in_a_file_comes_too_late_and_a_run_may_do_without_records(tmp_path: Path, run_nextflow) -> None:
    (tmp_path / "outdir.config").write_text(f"params.outdir = '{tmp_path}/out'\n")
    (tmp_path / "trace.config").write_text("trace.enabled = false\n")
    words = [ROOT / "bin" / "nextflow", "run", ROOT / "main.nf", "--input", tmp_path, "-c", tmp_path / "outdir.config"]
    done = subprocess.run(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=False)
    assert "outdir in a configuration file comes too late for the run's own settings; give --outdir" in done.stdout
    sheet = tmp_path / "none.csv"
    printed = run_nextflow(tmp_path, tmp_path / "out", "--input", sheet, "-c", tmp_path / "trace.config").printed
    assert "none.csv', which does not exist" in printed and "too late" not in printed


def test_a_path_that_an_engine_would_split_is_refused(tmp_path: Path) -> None:
    done = told(tmp_path, linked(tmp_path, {"a": tmp_path / "10:30"}))
    assert done.returncode != 0
    assert f"{tmp_path}/10:30/scan.nii.gz holds ':' or ',', which docker takes for the end of a path; rename it" in done.stdout
