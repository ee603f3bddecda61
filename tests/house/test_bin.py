"""The programs in bin/: what they write, and the one sentence they say when something is missing."""

import csv
import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOOLS = [
    *("bash", "cat", "chmod", "cksum", "cmp", "cp", "dirname", "env", "flock", "grep"),
    *("head", "mkdir", "mv", "readlink", "rm", "sed", "sha256sum", "sort", "tr"),
]


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it says."""
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)  # type: ignore[call-overload, no-any-return]


def says_one_sentence(answer: subprocess.CompletedProcess[str]) -> str:
    """The only line on stderr; the command must have failed."""
    assert answer.returncode != 0
    lines = answer.stderr.splitlines()
    assert len(lines) == 1, answer.stderr
    return lines[0]


def fake(path: Path, body: str) -> None:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def bare(root: Path, tmp_path: Path) -> Path:
    """A checkout before set-up, in a folder with a space and an accent; tools/ beside it holds what every machine has."""
    checkout = tmp_path / "a folder é" / "checkout"
    shutil.copytree(root / "bin", checkout / "bin")
    (checkout / "python").mkdir()
    for name in ("requirements.txt", "requirements-setup.txt", "pyproject.toml"):
        shutil.copy(root / "python" / name, checkout / "python")
    (tmp_path / "tools").mkdir()
    for name in TOOLS:
        (tmp_path / "tools" / name).symlink_to(shutil.which(name) or pytest.fail(f"{name} is missing on this machine"))
    return checkout


@pytest.fixture
def with_python(bare: Path, tmp_path: Path) -> Path:
    """The same with the Python part of set-up done, by a Python that only pretends."""
    make_venv = 'mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; cp "$0" "$4/bin/lesionforge"; echo "$4" >"$4/bin/activate"'
    make_uv = 'mkdir -p .setup/uv/bin; cp "$0" .setup/uv/bin/uv'
    fake(tmp_path / "tools" / "python3.11", f'case "$*" in *-m\\ venv*) {make_venv};; *--target*) {make_uv};; esac')
    return bare


def bootstrap(checkout: Path, *folders: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run set-up with only these folders and tools/ on PATH."""
    path = os.pathsep.join(map(str, (*folders, checkout.parents[1] / "tools")))
    return run(checkout / "bin/bootstrap", env={"PATH": path, "HOME": str(checkout.parent), **variables})


def test_nextflow_before_set_up_says_what_to_do(bare: Path) -> None:
    assert "make setup" in says_one_sentence(run(bare / "bin/nextflow", "run", "main.nf"))


def test_set_up_without_python_says_so(bare: Path) -> None:
    assert "Python 3.11" in says_one_sentence(bootstrap(bare))


def test_set_up_with_a_python_that_makes_no_environments_says_so(bare: Path, tmp_path: Path) -> None:
    fake(tmp_path / "p" / "python3.12", 'case "$2" in *ensurepip*) exit 1;; esac')
    assert "python3.12-venv" in says_one_sentence(bootstrap(bare, tmp_path / "p"))


def test_set_up_whose_python_is_gone_is_done_again(with_python: Path, tmp_path: Path) -> None:
    said = [bootstrap(with_python, tmp_path / "tools").stdout for _ in range(2)]
    assert ["making .venv" in text for text in said] == [True, False]
    (with_python / ".venv" / "bin" / "python").unlink()
    (with_python / ".venv" / "bin" / "python").symlink_to(tmp_path / "gone")
    assert "making .venv" in bootstrap(with_python, tmp_path / "tools").stdout


def test_set_up_without_java_says_so(with_python: Path) -> None:
    assert "Java 17" in says_one_sentence(bootstrap(with_python))


def test_set_up_with_an_old_java_says_so(with_python: Path, tmp_path: Path) -> None:
    fake(tmp_path / "jdk" / "bin" / "java", "echo 'openjdk version \"11.0.2\" 2019-01-15' >&2")
    sentence = says_one_sentence(bootstrap(with_python, JAVA_HOME=str(tmp_path / "jdk")))
    assert "version 11" in sentence and "Java 17" in sentence


def test_set_up_that_can_fetch_no_nextflow_says_so(with_python: Path, tmp_path: Path) -> None:
    fake(tmp_path / "p" / "java", "echo 'openjdk version \"17.0.2\" 2022-01-18' >&2")
    assert "24.10 or newer on PATH" in says_one_sentence(bootstrap(with_python, tmp_path / "p"))


def test_other_jars_of_nextflow_than_those_listed_are_refused(with_python: Path, tmp_path: Path) -> None:
    fake(tmp_path / "p" / "java", "echo 'openjdk version \"17.0.2\" 2022-01-18' >&2")
    fetch = 'mkdir -p "${word#*=}"; echo other >"${word#*=}/nextflow-25.04.0.jar"'
    fake(tmp_path / "p" / "mvn", f'for word; do case "$word" in -DoutputDirectory=*) {fetch} ;; esac; done')
    assert "bin/nextflow-jars.sha256" in says_one_sentence(bootstrap(with_python, tmp_path / "p"))
    assert not list((with_python / ".setup").glob("nextflow-*"))


def test_a_new_enough_nextflow_on_path_is_taken_and_an_old_one_is_not(with_python: Path, tmp_path: Path) -> None:
    for version in ("23.10.1", "24.10.5"):
        fake(tmp_path / version / "nextflow", f'[ "$1" = -version ] && echo "version {version} build 1" || printf "%s|" "$@"')
    answer = bootstrap(with_python, tmp_path / "23.10.1", tmp_path / "24.10.5")
    assert answer.returncode == 0, answer.stderr
    assert "leaving" in answer.stdout and "23.10.1" in answer.stdout
    ran = run(with_python / "bin/nextflow", "run", "a b", "", cwd=tmp_path)
    assert ran.stdout == "run|a b||"
    assert bootstrap(with_python, tmp_path / "23.10.1", tmp_path / "24.10.5").stdout == "", "done set-up has nothing to do"


def test_nextflow_gets_a_locale_that_can_name_every_path(with_python: Path, tmp_path: Path) -> None:
    fake(tmp_path / "p" / "nextflow", '[ "$1" = -version ] && echo "version 25.04.0 build 1" || echo "$LC_ALL|$LANG"')
    assert bootstrap(with_python, tmp_path / "p").returncode == 0
    for lang, expected in (("C", "C.UTF-8|C"), ("en_GB.UTF-8", "|en_GB.UTF-8"), ("de_DE.utf8", "|de_DE.utf8")):
        answer = run(with_python / "bin/nextflow", "config", env={"PATH": os.environ["PATH"], "LANG": lang})
        assert answer.stdout.strip() == expected


@pytest.mark.parametrize("weights", ["", "a folder/weights"])
def test_the_experiment_takes_imported_weights_where_some_are_given(root: Path, tmp_path: Path, weights: str) -> None:
    told = run("make", "--dry-run", "experiment-open-ms", f"BASELINE={weights}", f"EXPERIMENT={tmp_path}/new", cwd=root)
    assert told.returncode == 0, told.stderr
    assert ("--baseline" in told.stdout) == (f'"{weights}/model_1.hdf5"' in told.stdout) == bool(weights)


@pytest.mark.parametrize("data", ["", "no/such/folder", "."])
def test_open_ms_cohort_without_the_scans_says_one_sentence(root: Path, tmp_path: Path, data: str) -> None:
    answer = run(root / "bin/open-ms-cohort", data, tmp_path / "sheet" / "cohort.csv", cwd=tmp_path)
    assert answer.returncode == 2
    assert "DATA=" in says_one_sentence(answer)
    assert not list(tmp_path.iterdir())


def test_open_ms_cohort_lists_files_that_exist_and_leaves_an_equal_sheet_alone(root: Path, tmp_path: Path) -> None:
    data, sheet = tmp_path / "scans é", tmp_path / "out" / "cohort.csv"
    for stem in ("lg01/ses-1", "lg01/ses-2", "lg04/ses-1", "lg12/ses-2"):
        subject, session = stem.split("/")
        for suffix in ("T1w", "FLAIR"):
            make_empty(data / f"sub-{stem}/anat/sub-{subject}_{session}_{suffix}.nii.gz")
    for subject in ("cs07", "cs19"):
        for suffix in ("desc-preproc_T1w", "desc-preproc_FLAIR", "label-lesion_mask"):
            make_empty(data / f"derivatives/lit/sub-{subject}/anat/sub-{subject}_space-MNI152_{suffix}.nii.gz")
    assert run(root / "bin/open-ms-cohort", "scans é", sheet, cwd=tmp_path).returncode == 0
    with sheet.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 6
    assert all(Path(row[column]).is_file() for row in rows for column in ("t1w", "flair"))
    assert {row["subject"]: row["split"] for row in rows if row["lesion_mask"]} == {"cs07": "train", "cs19": "test"}
    written = sheet.stat().st_mtime_ns
    assert run(root / "bin/open-ms-cohort", "scans é", sheet, cwd=tmp_path).returncode == 0
    assert sheet.stat().st_mtime_ns == written


def make_empty(path: Path) -> None:
    """An empty file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
