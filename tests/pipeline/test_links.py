"""What a task gets of a file behind a link, where an engine must mount what the link leads to."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pipeline_copy import ROOT, copy_pipeline

PROBE = """
include { fileOf } from './modules/script'

workflow {
    file(params.links).listFiles().sort().each { path -> println("${path.name} is ${fileOf(path.toString())}") }
}
"""


def test_an_engine_mounts_what_a_link_leads_to_but_nothing_that_a_shell_could_misread(tmp_path: Path) -> None:
    copy_pipeline(tmp_path)
    (tmp_path / "probe.nf").write_text(PROBE)
    links, annex = tmp_path / "links", tmp_path / "annex"
    links.mkdir()
    folders = {"a": annex, "b": annex / "$(touch pwned)", "c": annex / "x\ntouch pwned", "d": annex / "`touch pwned`"}
    for name, folder in folders.items():
        folder.mkdir()
        (folder / "scan.nii.gz").touch()
        (links / f"{name}.nii.gz").symlink_to(folder / "scan.nii.gz")
    words = [ROOT / "bin" / "nextflow", "run", "probe.nf", "-ansi-log", "false", "-profile", "docker", "--links", links]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = dict(line.split(" is ") for line in done.stdout.splitlines() if ".nii.gz is " in line)
    unsafe = {f"{name}.nii.gz": str(links / f"{name}.nii.gz") for name in "bcd"}
    assert told == {"a.nii.gz": str(annex / "scan.nii.gz")} | unsafe
