"""One coarse cohort for all phantom tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from lesionforge.cli import main

ARGUMENTS = ("--patients", "2", "--healthy", "1", "--voxel-mm", "4")


@pytest.fixture(scope="session")
def make_cohort():
    def make(out: Path, *arguments: str):
        return CliRunner().invoke(main, ["--threads", "1", "phantom", str(out), *ARGUMENTS, *arguments])

    return make


@pytest.fixture(scope="session")
def cohort(make_cohort, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "cohort"
    result = make_cohort(out, "--seed", "3")
    assert result.exit_code == 0, result.output
    return out
