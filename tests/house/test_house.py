"""The house keeps its promises: locked packages, one name per stage, light start, nothing of one machine."""

import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import click
import pytest

from lesionforge import __version__
from lesionforge.cli import COMMANDS, main

STAGES = ["cohort", "prepare", "register", "synthesize", "assemble", "train", "segment", "evaluate", "report"]


LOCKS = [f"python/requirements{kind}.txt" for kind in ("", "-setup", "-audit")]
LOCKS += [f"containers/requirements-{kind}.txt" for kind in ("cpu", "gpu")]


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_a_version_and_a_hash_and_no_host_is_named(root: Path, name: str) -> None:
    text = (root / name).read_text()
    assert "://" not in text and "--index" not in text
    entries = re.split(r"\n(?=[a-zA-Z])", text.strip())
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_every_package_that_pyproject_asks_for_is_locked(root: Path) -> None:
    project = tomllib.loads((root / "python/pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + project["optional-dependencies"]["dev"] + ["setuptools"]
    locked = re.findall(r"^([a-z0-9._-]+)==", (root / "python/requirements.txt").read_text(), flags=re.MULTILINE)
    assert {re.split(r"[<>=\[ ]", name)[0] for name in asked} <= set(locked)


def test_the_images_hold_the_locked_versions_and_all_that_the_program_asks_for(root: Path) -> None:
    pin = r"(?m)^([a-z0-9._-]+)==([^\s;]+)"
    image = set(re.findall(pin, (root / "containers/requirements-cpu.txt").read_text()))
    assert image <= set(re.findall(pin, (root / "python/requirements.txt").read_text()))
    asked = tomllib.loads((root / "python/pyproject.toml").read_text())["project"]["dependencies"]
    assert set(asked) <= {name for name, _ in image}


def test_the_licence_is_apache_2(root: Path) -> None:
    assert "Apache License\n                           Version 2.0" in (root / "LICENSE").read_text()
    assert tomllib.loads((root / "python/pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"


@pytest.mark.parametrize("name", ["nextflow.config", "CITATION.cff", "CHANGELOG.md"])
def test_the_version_is_the_same_everywhere(root: Path, name: str) -> None:
    assert re.search(rf"\b{re.escape(__version__)}\b", (root / name).read_text())


NAMING_IMAGES = ("containers/compose.yaml", "containers/compose.gpu.yaml", "docs/containers.md", "docs/running.md")


@pytest.mark.parametrize("name", NAMING_IMAGES)
def test_images_have_this_version_everywhere(root: Path, name: str) -> None:
    found = re.findall(r"lesionforge[:-](?:\$\{VERSION:-)?(\d+\.\d+\.\d+)", (root / name).read_text())
    assert set(found) == {__version__}


def test_the_tests_that_the_table_of_faults_names_are_there(root: Path) -> None:
    lines = (root / "docs/running.md").read_text().split("## Faults")[1].splitlines()
    cells = [line.split("|")[3] for line in lines if line.startswith("|")]
    named = {name for cell in cells for name in re.findall(r"`(\w{12,})(?:\[\w+\])?`", cell)}
    files = [path for folder in ("cluster", "containers", "pipeline") for path in (root / "tests" / folder).glob("test_*.py")]
    tests = "".join(path.read_text() for path in files)
    assert len(named) > 20
    assert not [name for name in named if f"def test_{name}(" not in tests]


def test_the_site_configuration_and_the_docs_name_the_job_arrays_of_the_profile(root: Path) -> None:
    ours, theirs = (
        set(re.search(r"withName: '([A-Z_|]+)' \{\s+array =", (root / name).read_text())[1].split("|"))  # type: ignore[index]
        for name in ("nextflow.config", "docs/site.config")
    )
    page = (root / "docs/running.md").read_text()
    assert ours == theirs and len(ours) == 14
    assert not [name for name in ours if not re.search(rf"\b{name}\b", page.split("as job arrays")[0])]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_one_name_everywhere(root: Path, stage: str) -> None:
    assert COMMANDS[stage][0] == f"lesionforge.{stage}.command"
    for path in (
        f"python/src/lesionforge/{stage}/command.py",
        f"modules/{stage}/main.nf",
        f"tests/{stage}",
    ):
        assert (root / path).exists(), path
    assert f"`{stage}`" in (root / "README.md").read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_found_under_its_name_and_has_help(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None and command.name == name
    assert command.get_help(click.Context(command, info_name=name)).startswith(f"Usage: {name} ")


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "from lesionforge.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print('HEAVY', [n for n in ('numpy', 'nibabel', 'ants', 'tensorflow', 'keras', 'pandas') if n in sys.modules])\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "HEAVY []"
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", answer.stdout, flags=re.MULTILINE), command


def reached(root: Path, package: str) -> set[str]:
    """The packages whose code is in the digest of one, found as modules/script.nf finds them."""
    folder, found, left = root / "python/src/lesionforge", set(), {package}
    lines = re.compile(r"^\s*(?:(?:from|import)\s+lesionforge\.|from\s+lesionforge\s+import\s+)(\w+)", re.MULTILINE)
    while left:
        found |= left
        names = {name for one in left for path in (folder / one).rglob("*.py") for name in lines.findall(path.read_text())}
        left = {name for name in names if (folder / name).is_dir()} - found
    return found


def test_an_edit_reruns_nothing_before_the_stage_that_runs_the_code(root: Path) -> None:
    """The cohort stage reads cards, but not the code that trains; the generator learns nothing from a cascade."""
    assert "cascade" in reached(root, "cohort")
    assert not reached(root, "cohort") & {"synthesize", "train", "segment"}
    for stage in ("prepare", "register", "synthesize"):
        assert not reached(root, stage) & {"cascade", "train", "segment"}


def included_in(script: str) -> list[str]:
    """What a Nextflow script includes, each once; on several lines, in either quotes and before a comment too."""
    found = re.findall(r"^[ \t]*include\s*\{[^}]*\}\s*from\s*(['\"])(.+?)\1", script, re.MULTILINE)
    return sorted({name for _quote, name in found})


def test_includes_are_found_however_they_are_written() -> None:
    plain, double = "include { A; B as C } from './a'\n", 'include { D } from "../b" // a comment\n'
    several, dead = "  include {\n    E // one\n    F\n}\nfrom './c'\n", "// include { G } from './d'\n"
    assert included_in(plain + double + several + dead + plain) == ["../b", "./a", "./c"]


def test_a_module_that_two_others_include_includes_nothing_itself(root: Path) -> None:
    """The strict parser of Nextflow 25.04 runs it once for each and refuses what it includes for being there twice."""
    includes = [
        (path, (path.parent / found).resolve().with_suffix(".nf"))
        for path in [root / "main.nf", *sorted((root / "modules").rglob("*.nf"))]
        for found in included_in(path.read_text())
    ]
    counts = Counter(found for _path, found in includes)
    assert len(includes) > 20
    assert all(found.is_file() for found in counts)
    assert [str(path.relative_to(root)) for path, _found in includes if counts[path] > 1] == []


def test_no_file_names_a_place_of_one_machine(root: Path, tracked: list[Path]) -> None:
    homes = re.compile(rb"/(home|Users)/[a-z]")
    for path in tracked:
        content = path.read_bytes()
        assert not homes.search(content), path
        assert len(root.parts) < 3 or f"{root}/".encode() not in content, path


def test_no_file_is_large(tracked: list[Path]) -> None:
    for path in tracked:
        assert path.stat().st_size < 1_000_000, path
        if path.suffix in (".py", ".nf"):
            assert len(path.read_text().splitlines()) < 500, path
