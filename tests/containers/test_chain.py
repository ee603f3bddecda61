"""The same chain without an engine and in each: the same voxels."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import pytest
from pipeline_copy import ROOT, traces_in

# What of a checkout an image is built of, and the pipeline.
COPIED = {
    *(".dockerignore", "LICENSE", "bin", "containers", "python"),
    *("main.nf", "modules", "nextflow.config", "nextflow_schema.json"),
}
NEVER = {"__pycache__", *(path.name for path in (ROOT / "containers").glob("*.sif"))}


def test_the_engine_gives_the_voxels_of_a_run_without_it(chains, engine):
    assert chains["local"].code == 0, chains["local"].printed
    assert chains[engine].code == 0, chains[engine].printed
    plain = chains["local"].digests()
    for part in ("synthesize/sub-syn0001", "segment/augmented"):
        assert any(name.startswith(part) for name in plain), part
    assert "unpacks" not in chains[engine].printed
    assert chains[engine].digests() == plain


def test_apptainer_by_slurm_gives_the_voxels_of_a_run_without_it(chains, cluster):
    if "slurm,apptainer" not in chains:
        pytest.skip("THE CHAIN ON SLURM IS NOT TESTED: it needs Apptainer, which this machine does not have.")
    run = chains["slurm,apptainer"]
    assert run.code == 0, run.printed
    scripts = {path.parent: path.read_text() for path in run.outdir.parent.glob("work/??/*/.command.run")}
    arrays = {folder: script for folder, script in scripts.items() if "#SBATCH --array" in script}
    assert arrays
    # A task is a job of its own, or an element of an array, whose script names the element's folder and has no orders for SLURM.
    for folder, script in scripts.items():
        assert "#SBATCH" in script or any(str(folder) in array for array in arrays.values())
        assert folder in arrays or "apptainer exec" in script
    assert run.digests() == chains["local"].digests()


def test_results_belong_to_the_caller(chains, engine):
    results = list(chains[engine].outdir.rglob("*"))
    assert results and {path.lstat().st_uid for path in results} == {os.getuid()}


def test_an_edit_asks_for_a_new_image_and_then_runs_its_stage_and_what_follows_again(
    chains, command, start, cohort, image, tmp_path
):
    if "docker" not in chains:
        pytest.skip("AN IMAGE THAT IS MADE ANEW IS NOT TESTED: it needs Docker, which this machine does not have.")
    copy, launch = tmp_path / "copy", chains["docker"].outdir.parent
    assert chains["docker"].code == 0, chains["docker"].printed
    shutil.copytree(ROOT, copy, ignore=lambda folder, names: {*names} - COPIED if Path(folder) == ROOT else NEVER)
    with (copy / "python" / "src" / "lesionforge" / "evaluate" / "command.py").open("a") as code:
        code.write("\n# Edited.\n")
    words = ("--input", cohort / "cohort.csv", "-params-file", cohort / "thin.json", "-profile", "test,reproducible,docker")
    kept = f"{image}-kept"

    def image_id():
        return command("docker", "image", "inspect", "--format", "{{.Id}}", image, folder=copy).stdout.strip()

    original = image_id()
    assert command("docker", "tag", image, kept, folder=copy).returncode == 0
    try:
        refused = start(launch, *words, "-resume", pipeline=copy / "main.nf")
        assert refused.code != 0 and "holds other Python code than this checkout" in refused.printed
        built = command(copy / "containers" / "build", "cpu", folder=copy)
        assert built.returncode == 0, built.stdout
        run = start(launch, *words, "-resume", pipeline=copy / "main.nf")
    finally:
        edited = {image_id()} - {original}
        restored = command("docker", "tag", kept, image, folder=copy)
        assert restored.returncode == 0, restored.stdout
        command("docker", "rmi", kept, *edited, folder=copy)
    assert run.code == 0, run.printed
    with max(traces_in(run.outdir)).open(newline="") as rows:
        tasks = [(row["process"].rsplit(":", 1)[1], row["status"]) for row in csv.DictReader(rows, delimiter="\t")]
    done = {process for process, status in tasks if status == "COMPLETED"}
    assert "EVALUATE" in done and done <= {"EVALUATE", "COMPARE", "REPORT"}, done
    assert ("SEGMENT", "CACHED") in tasks


def test_compose_runs_a_cohort_through_the_all_in_one_image(compose, command, caller, cohort, chains, tmp_path, out):
    inputs = tmp_path / "in"
    shutil.copytree(cohort, inputs)
    shutil.copytree(chains["local"].outdir / "train" / "augmented", inputs / "model")
    header, *rows = (cohort / "cohort.csv").read_text().splitlines()
    (inputs / "cohort.csv").write_text("\n".join([header, *(row for row in rows if row.startswith("p02,"))]) + "\n")
    words = ("run", "--rm", "cohort", "-profile", "test,reproducible", "--voxel_mm", "4", "-ansi-log", "false")
    settings = {"env": os.environ | caller | {"IN": str(inputs), "OUT": str(out)}}
    done = command(*compose, *words, "--mode", "segment", "--model", "/in/model", folder=tmp_path, **settings)
    assert done.returncode == 0, done.stdout
    mask = "sub-p02/sub-p02_space-T1w_res-native_label-lesion_mask.nii.gz"
    plain = chains["local"].outdir / "segment" / "augmented" / mask
    assert (out / "results" / "segment" / "model" / mask).read_bytes() == plain.read_bytes()
    assert (out / "results" / "report" / "index.html").stat().st_size > 10_000


def test_compose_predicts_one_subject_into_files_of_the_caller(compose, command, caller, cohort, chains, tmp_path, out):
    model = chains["local"].outdir / "train" / "augmented"
    paths = {"IN": str(cohort), "OUT": str(out), "MODEL": str(model)}
    scans = ("--t1w", "/in/sub-p02/anat/sub-p02_T1w.nii.gz", "--flair", "/in/sub-p02/anat/sub-p02_FLAIR.nii.gz")
    words = ("run", "--rm", "predict", *scans, "--model", "/model", "--out", "/out")
    done = command(*compose, *words, folder=tmp_path, env=os.environ | caller | paths)
    assert done.returncode == 0, done.stdout
    masks = list(out.rglob("*space-FLAIR_res-native_label-lesion_mask.nii.gz"))
    assert len(masks) == 1 and masks[0].stat().st_uid == int(caller["USER_ID"])


@pytest.mark.slow
def test_compose_runs_the_demo(compose, command, caller, tmp_path, out):
    """It takes as long as `make demo`."""
    done = command(*compose, "run", "--rm", "demo", folder=tmp_path, env=os.environ | caller | {"OUT": str(out)})
    assert done.returncode == 0, done.stdout
    arms = (out / "demo" / "evaluate" / "arms.tsv").read_text().splitlines()
    assert len(arms) > 2
    assert (out / "demo" / "report" / "index.html").stat().st_uid == int(caller["USER_ID"])


def test_compose_accepts_both_files(compose, command, caller, tmp_path):
    overlay = compose[-1].replace("compose.yaml", "compose.gpu.yaml")
    done = command(*compose, "-f", overlay, "config", folder=tmp_path, env=os.environ | caller)
    assert done.returncode == 0, done.stdout
    for word in ("no-new-privileges", "read_only: true", "-gpu", "nvidia", f"{caller['USER_ID']}:{caller['GROUP_ID']}"):
        assert word in done.stdout, word
