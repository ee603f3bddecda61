"""What the profiles, alone and together, leave of the settings of each label."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
from pipeline_copy import ROOT

LABELS = ("cpu_small", "cpu_medium", "cpu_large", "gpu")


def settings_of(profiles: str, parser: str) -> dict[str, set[str]]:
    """The directives that each label has, by any selector that fits it."""
    words = [ROOT / "bin" / "nextflow", "config", "-flat", "-profile", profiles, ROOT]
    env = os.environ | {"NXF_SYNTAX_PARSER": parser}
    told = subprocess.run(words, capture_output=True, text=True, check=True, env=env).stdout
    found = re.findall(r"^process\.'withLabel:([^']+)'\.(\w+) = ", told, re.MULTILINE)
    return {label: {directive for pattern, directive in found if re.fullmatch(pattern, label)} for label in LABELS}


@pytest.mark.parametrize("parser", ["v1", "v2"])
@pytest.mark.parametrize("profiles", ["local", "gpu", "test", "slurm", "docker,gpu", "slurm,gpu", "gpu,slurm", "test,gpu"])
def test_every_label_keeps_its_processors_memory_and_time(profiles: str, parser: str) -> None:
    found = settings_of(profiles, parser)
    for label in LABELS:
        assert {"cpus", "memory", "time"} <= found[label], (label, found)
    assert ("accelerator" in found["gpu"]) == ("gpu" in profiles)
    assert not any("accelerator" in found[label] for label in LABELS[:3])
