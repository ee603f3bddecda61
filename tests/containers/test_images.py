"""What an image promises whoever starts it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STRICT = ("--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")


@pytest.fixture
def builder(builder, ordinary) -> str:
    """An engine in which an image can be any user's, as its own user is not the caller's."""
    if builder == "podman" and ordinary:
        pytest.skip("an ordinary user without ranges of subordinate users has one user in a container of podman's")
    return builder


def test_any_user_can_work_with_a_read_only_root_and_without_network(builder, image, command, tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root can make a folder of another user")
    outside = tmp_path / "outside"
    outside.mkdir()
    os.chown(outside, 12345, 54321)
    phantom = ("lesionforge", "phantom", "/out/cohort", "--patients", "1", "--healthy", "0", "--voxel-mm", "4")
    done = command(
        builder, "run", "--rm", *STRICT, "-u", "12345:54321", "-v", f"{outside}:/out", image, *phantom, folder=tmp_path
    )
    assert done.returncode == 0, done.stdout
    made = list((outside / "cohort").rglob("*"))
    assert made and {(path.lstat().st_uid, path.lstat().st_gid) for path in made} == {(12345, 54321)}


def test_the_image_is_small_and_says_what_it_is(builder, image, command, tmp_path):
    done = command(builder, "image", "inspect", image, folder=tmp_path)
    said = json.loads(done.stdout)[0]
    assert said["Size"] <= 3e9
    assert said["Config"]["Labels"]["org.opencontainers.image.version"] == image.split(":")[1]
    assert said["Config"]["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert said["Config"]["User"] not in ("", "0", "root")


def test_the_command_starts_in_a_second(builder, image, command, tmp_path):
    script = "TIMEFORMAT=%R; for try in 1 2 3 4 5; do time lesionforge --version; done"
    done = command(builder, "run", "--rm", *STRICT, image, "bash", "-c", script, folder=tmp_path)
    seconds = [float(line) for line in done.stdout.splitlines() if re.fullmatch(r"\d+\.\d+", line)]
    assert len(seconds) == 5, done.stdout
    assert min(seconds) <= 1


def test_the_list_of_packages_holds_all_that_is_locked_and_no_development_tool(builder, image, command, tmp_path):
    done = command(builder, "run", "--rm", image, "cat", "packages.tsv", folder=tmp_path)
    listed = {tuple(line.split("\t")[:3]) for line in done.stdout.splitlines()[1:]}
    python = {(name.lower().replace("_", "-"), version) for source, name, version in listed if source == "python"}
    lock = (ROOT / "containers" / "requirements-cpu.txt").read_text()
    locked = set(re.findall(r"(?m)^([^ =]+)==(\S+)", lock))
    assert {(name.replace(".", "-"), version) for name, version in locked} <= {(n.replace(".", "-"), v) for n, v in python}
    assert ("lesionforge", image.split(":")[1]) in python
    assert not {name for name, _ in python} & {"pip", "uv", "ruff", "mypy", "pytest"}
    assert {"bash", "procps"} <= {name for source, name, _ in listed if source == "debian"}
