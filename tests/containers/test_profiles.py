"""What a task may do under each engine's profile, and what is refused before the first one starts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pipeline_copy import ROOT, copy_pipeline

ENGINES = os.environ.get("LESIONFORGE_ENGINES", "").split()
PROBE = """
process PROBE {
    input:
    path given

    output:
    path 'said.txt'

    script:
    \"\"\"
    exec >said.txt 2>/dev/null
    grep -E '^(CapEff|CapBnd|NoNewPrivs):' /proc/self/status | tr -d '\\t'
    echo "user:\\$(id -u)"
    echo "routes:\\$(tail -n +2 /proc/net/route | wc -l)"
    touch /opt/lesionforge/written && echo root:written || echo root:kept
    echo more >>${given} && echo input:written || echo input:kept
    [ "\\$HOME" -ef . ] && echo home:task || echo "home:\\$HOME"
    python3 -c 'import socket; socket.create_connection(("192.0.2.1", 80), 2)' && echo network:there || echo network:none
    \"\"\"
}

workflow {
    PROBE(file(params.given)).collectFile(name: 'said.txt', storeDir: params.outdir)
}
"""


@pytest.fixture(scope="session")
def copy(tmp_path_factory) -> Path:
    """A pipeline whose files a test may edit, with this checkout's .sif beside it."""
    folder = copy_pipeline(tmp_path_factory.mktemp("copy"))
    for sif in (ROOT / "containers").glob("*.sif"):
        (folder / "containers" / sif.name).symlink_to(sif)
    return folder


@pytest.fixture(scope="session")
def said(copy, engine, start, tmp_path_factory) -> dict[str, str]:
    """What a task found out about itself, under the project's own configuration."""
    launch = tmp_path_factory.mktemp("probe")
    (copy / "probe.nf").write_text(PROBE)
    given = tmp_path_factory.mktemp("given") / "given.txt"
    given.write_text("given\n")
    run = start(launch, "--given", given, "-profile", engine, pipeline=copy / "probe.nf")
    assert run.code == 0, run.printed
    assert given.read_text() == "given\n" or engine == "apptainer"
    return dict(line.split(":", 1) for line in (run.outdir / "said.txt").read_text().splitlines())


def test_a_task_has_no_capability_and_cannot_get_one(said):
    assert int(said["CapEff"], 16) == 0
    assert said["NoNewPrivs"] == "1"


def test_a_task_is_the_caller(said, engine, ordinary, command, tmp_path):
    """User 0 of a podman container is the caller outside."""
    caller = command(*ordinary, "id", "-u", folder=tmp_path).stdout.strip() if engine == "apptainer" else str(os.getuid())
    assert said["user"] == ("0" if engine == "podman" else caller)


def test_a_task_has_no_network(said):
    assert (said["routes"], said["network"]) == ("0", "none")


def test_a_task_cannot_change_the_image_or_its_inputs(said):
    assert (said["root"], said["input"]) == ("kept", "kept")


def test_the_home_of_a_task_is_its_folder(said, engine):
    if engine == "apptainer":
        pytest.skip("Apptainer keeps HOME to itself; with --contain the folder it names is not that of the host")
    assert said["home"] == "task"


HOSTILE = [
    "$(touch pwned)",
    "x; touch pwned",
    "x\ntouch pwned",
    "../../pwned",
    "-rf",
    "<img src=x onerror=alert(1)>",
    "`touch pwned`",
]


def test_hostile_names_in_a_sheet_are_refused_each_in_a_sentence_and_change_nothing(engine, start, cohort, tmp_path):
    row = (cohort / "cohort.csv").read_text().splitlines()[1].split(",")
    header = (cohort / "cohort.csv").read_text().splitlines()[0]
    subject, t1w = (header.split(",").index(name) for name in ("subject", "t1w"))
    rows = []
    for column in (subject, t1w):
        for name in HOSTILE:
            cells = [*row]
            cells[column] = '"' + name.replace('"', '""') + '"'
            rows.append(",".join(cells))
    inputs = tmp_path / "inputs"
    shutil.copytree(cohort, inputs)
    # A name that hides another: what a link leads to is mounted too.
    for number, folder in enumerate(("$(touch pwned)", "x\ntouch pwned", "`touch pwned`")):
        (inputs / folder).mkdir()
        shutil.copy(inputs / row[t1w], inputs / folder / "scan.nii.gz")
        (inputs / f"link{number}.nii.gz").symlink_to(inputs / folder / "scan.nii.gz")
        cells = [*row]
        cells[t1w] = f"link{number}.nii.gz"
        rows.append(",".join(cells))
    (inputs / "cohort.csv").write_text("\n".join([header, *rows]) + "\n")
    there = sorted(inputs.rglob("*"))
    run = start(tmp_path / "launch", "--input", inputs / "cohort.csv", "-profile", f"test,{engine}")
    assert run.code != 0
    trace = next(run.outdir.glob("pipeline_info/trace_*.tsv")).read_text().splitlines()
    assert len(trace) == 2 and trace[1].split("\t")[6:8] == ["FAILED", "2"]
    # Nextflow prints the last 50 lines. A row counts as the line that it begins in; those with a newline in them fill two.
    said = next((tmp_path / "launch" / "work").glob("??/*/.command.err")).read_text()
    for number in (2 + "".join(f"{row}\n" for row in rows[:before]).count("\n") for before in range(len(rows))):
        assert f"cohort.csv, row {number}, column " in said, number
    for number in range(3):
        assert f"link{number}.nii.gz' leads by a link to " in said
    assert "problems, listed above; nothing was written" in run.printed
    assert "Traceback" not in said + run.printed
    assert sorted(inputs.rglob("*")) == there
    assert not list(tmp_path.rglob("pwned"))
    assert [path.name for path in run.outdir.iterdir()] == ["pipeline_info"]


@pytest.fixture
def config(copy) -> Iterator[Path]:
    """The pipeline's configuration, for a test to edit."""
    path = copy / "nextflow.config"
    before = path.read_text()
    yield path
    path.write_text(before)


def test_an_image_that_is_not_there_is_said_before_any_work(copy, config, engine, start, cohort, tmp_path):
    before = config.read_text()
    version = before.split("version         = '")[1].split("'")[0]
    config.write_text(before.replace(f"'{version}'", "'9.9.9'"))
    run = start(tmp_path, "--input", cohort / "cohort.csv", "-profile", f"test,{engine}", pipeline=copy / "main.nf")
    assert run.code != 0
    assert (
        "make it with 'make sif'" if engine == "apptainer" else f"{engine} has no image lesionforge:9.9.9: make it with"
    ) in run.printed
    assert "Submitted process" not in run.printed


def test_an_engine_that_starts_no_container_is_said_before_any_work(copy, config, engine, start, cohort, tmp_path):
    last = "--network=none'" if engine == "apptainer" else "--read-only'"
    config.write_text(config.read_text().replace(last, last.replace("'", " --no-such-option'")))
    run = start(tmp_path, "--input", cohort / "cohort.csv", "-profile", f"test,{engine}", pipeline=copy / "main.nf")
    assert run.code != 0
    assert f"{engine} starts no container of " in run.printed and "no-such-option" in run.printed
    assert "Submitted process" not in run.printed


@pytest.fixture
def edited(copy) -> Iterator[Path]:
    """The pipeline after an edit to its Python code."""
    source = copy / "python" / "src" / "lesionforge" / "evaluate" / "arms.py"
    before = source.read_text()
    source.write_text(before + "\n# A remark.\n")
    yield copy
    source.write_text(before)


def test_an_image_of_other_code_is_refused_before_any_work(edited, engine, start, cohort, tmp_path):
    """Else the tasks of an edited stage would run again and give the results of before."""
    run = start(tmp_path, "--input", cohort / "cohort.csv", "-profile", f"test,{engine}", pipeline=edited / "main.nf")
    assert run.code != 0
    assert "holds other Python code than this checkout: make it anew" in run.printed
    assert "Submitted process" not in run.printed


def test_an_image_that_the_user_names_is_looked_at_too(edited, builder, image, start, cohort, tmp_path):
    (tmp_path / "own.config").write_text(f"process.container = '{image}'\n")
    settings = {"pipeline": edited / "main.nf", "config": tmp_path / "own.config"}
    run = start(tmp_path / "launch", "--input", cohort / "cohort.csv", "-profile", f"test,{builder}", **settings)
    assert run.code != 0
    assert "holds other Python code than this checkout: make it anew" in run.printed
    assert "Submitted process" not in run.printed


def test_an_image_that_the_user_names_for_the_gpu_alone_is_looked_at_too(builder, start, cohort, tmp_path):
    (tmp_path / "own.config").write_text("process { withLabel: gpu { container = '/nowhere/own-gpu.sif' } }\n")
    profiles = ("-profile", f"test,{builder}")
    run = start(tmp_path / "launch", "--input", cohort / "cohort.csv", *profiles, config=tmp_path / "own.config")
    assert run.code != 0
    assert "The image /nowhere/own-gpu.sif does not exist: make it with" in run.printed
    assert "Submitted process" not in run.printed


def test_with_slurm_too_an_image_of_other_code_is_refused(edited, cluster, start, cohort, tmp_path):
    if "apptainer" not in ENGINES:
        pytest.skip("AN IMAGE OF OTHER CODE IS NOT TESTED WITH SLURM: it needs Apptainer, which this machine does not have.")
    settings = {"pipeline": edited / "main.nf", "env": cluster.env}
    run = start(tmp_path, "--input", cohort / "cohort.csv", "-profile", "test,slurm,apptainer", **settings)
    assert run.code != 0
    assert "holds other Python code than this checkout: make it anew with 'make sif'" in run.printed
    assert "Submitted process" not in run.printed


@pytest.fixture(scope="module")
def without_engines(tmp_path_factory) -> dict[str, str]:
    """The environment of a machine that has all programs of this one but the engines."""
    programs = tmp_path_factory.mktemp("bin")
    for folder in os.environ["PATH"].split(":"):
        for program in Path(folder).glob("*") if Path(folder).is_dir() else []:
            if program.name not in ("docker", "podman", "apptainer") and not (programs / program.name).is_symlink():
                (programs / program.name).symlink_to(program)
    return os.environ | {"PATH": str(programs)}


@pytest.mark.parametrize("absent", ["docker", "podman", "apptainer"])
def test_an_engine_that_is_not_installed_is_said_before_any_work(absent, without_engines, start, cohort, tmp_path):
    run = start(tmp_path, "--input", cohort / "cohort.csv", "-profile", f"test,{absent}", env=without_engines)
    assert run.code != 0
    assert f"-profile {absent} needs the program {absent}, which is not on PATH: install it" in run.printed
    assert "Submitted process" not in run.printed


def test_reproducible_and_gpu_exclude_each_other(start, cohort, tmp_path):
    run = start(tmp_path, "--input", cohort / "cohort.csv", "-profile", "test,reproducible,gpu")
    assert run.code != 0
    assert "-profile reproducible and gpu exclude each other" in run.printed
    assert "Submitted process" not in run.printed
