"""Tests in real engines, for `make test-containers`, which brings them and the images up; else nothing here is collected."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster_of_two import lacking

ROOT = Path(__file__).resolve().parents[2]
LESIONFORGE = ROOT / ".venv" / "bin" / "lesionforge"
# ORDINARY: what root says before podman and Apptainer, so that they serve an ordinary user, as they do elsewhere.
ENGINES, ORDINARY = (os.environ.get(f"LESIONFORGE_{name}", "").split() for name in ("ENGINES", "ORDINARY"))
VERSION = subprocess.run([LESIONFORGE, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
# The thinnest chain that has every stage.
THIN = {
    **{"voxel_mm": 4, "synthetic": 1, "arms": "augmented"},
    **{"generator_width": 4, "generator_epochs": 1, "generator_tiles": 8, "train_epochs": 1, "train_steps": 1},
}
# So impatient because the cluster is this machine alone, which has work for two tasks at a time.
QUICK = """
executor { queueSize = 2; pollInterval = '500 ms'; queueStatInterval = '1 sec'; exitReadTimeout = '8 sec' }
process.resourceLimits = [cpus: 1, memory: 5.GB, time: 1.h]
"""

collect_ignore_glob = [] if ENGINES else ["test_*.py"]


@dataclass(frozen=True)
class Run:
    """One finished run: exit code, what it printed, the folder of its results."""

    code: int
    printed: str
    outdir: Path

    def digests(self) -> dict[str, str]:
        """SHA-256 of every image of the results, by its path in them."""
        images = sorted(self.outdir.rglob("*.nii.gz"))
        return {str(path.relative_to(self.outdir)): hashlib.sha256(path.read_bytes()).hexdigest() for path in images}


def run(*words: str | Path, folder: Path, **settings) -> subprocess.CompletedProcess[str]:
    """A finished command with its two outputs as one text; podman is an ordinary user's."""
    if words[0] == "podman":
        words = (*ORDINARY, *words)
    return subprocess.run(
        words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=1800, **settings
    )


def nextflow(
    launch: Path, *options: str | Path, pipeline: Path = ROOT / "main.nf", config: Path | None = None, **settings
) -> Run:
    """Run a pipeline from the folder `launch`, with its results in `launch`/results; with podman or Apptainer as an ordinary
    user, but for SLURM, which is root's."""
    launch.mkdir(parents=True, exist_ok=True)
    more = ("-c", config) if config else ()
    words = ("run", pipeline, *more, "-ansi-log", "false", "--outdir", launch / "results", *options)
    profiles = {*str(options[options.index("-profile") + 1]).split(",")}
    caller = ORDINARY if profiles & {"podman", "apptainer"} and "slurm" not in profiles else ()
    done = run(*caller, ROOT / "bin" / "nextflow", *words, folder=launch, **settings)
    return Run(done.returncode, done.stdout, launch / "results")


@pytest.fixture(scope="session", params=ENGINES)
def engine(request) -> str:
    """The name of an engine that this machine has."""
    return request.param


@pytest.fixture(scope="session", params=[name for name in ENGINES if name != "apptainer"])
def builder(request) -> str:
    """Docker or podman: an engine of images, where a command is run as `docker run` does."""
    return request.param


@pytest.fixture(scope="session")
def ordinary() -> list[str]:
    """`ORDINARY`, for tests."""
    return ORDINARY


@pytest.fixture(scope="session")
def image() -> str:
    return f"lesionforge:{VERSION}"


@pytest.fixture(scope="session")
def start() -> Callable[..., Run]:
    """`nextflow`, for tests."""
    return nextflow


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run`, for tests."""
    return run


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom cohort of two patients, in a folder whose name needs quotes; one FLAIR is a link, as git-annex keeps files."""
    folder = tmp_path_factory.mktemp("inputs") / "l'étude d'un test"
    made = [LESIONFORGE, "phantom", folder, "--patients", "2", "--healthy", "0", "--voxel-mm", "4", "--seed", "1"]
    subprocess.run(made, check=True, capture_output=True)
    flair = folder / "sub-p01" / "anat" / "sub-p01_FLAIR.nii.gz"
    kept = folder / ".git" / "annex" / "objects" / "MD5E-s1--0.nii.gz"
    kept.parent.mkdir(parents=True)
    flair.rename(kept)
    flair.symlink_to(os.path.relpath(kept, flair.parent))
    (folder / "thin.json").write_text(json.dumps(THIN))
    return folder


@pytest.fixture(scope="session")
def compose() -> list[str]:
    """The words that start Compose: the plugin, else the program of before."""
    if "docker" not in ENGINES:
        pytest.skip("COMPOSE IS NOT TESTED: it needs Docker, which this machine does not have.")
    for words in (["docker", "compose"], ["docker-compose"]):
        if subprocess.run([*words, "version"], capture_output=True, check=False).returncode == 0:
            return [*words, "-f", str(ROOT / "containers" / "compose.yaml")]
    pytest.skip("COMPOSE IS NOT TESTED: neither docker compose nor docker-compose is installed.")


@pytest.fixture(scope="session")
def caller() -> dict[str, str]:
    """Who writes, for compose.yaml: where root runs the tests somebody else, of whom no image has heard."""
    user, group = (os.getuid(), os.getgid()) if os.getuid() else (12345, 12345)
    return {"USER_ID": str(user), "GROUP_ID": str(group)}


@pytest.fixture
def out(tmp_path: Path, caller: dict[str, str]) -> Path:
    """A folder of the caller's for results."""
    folder = tmp_path / "out"
    folder.mkdir()
    os.chown(folder, int(caller["USER_ID"]), int(caller["GROUP_ID"]))
    return folder


@pytest.fixture(scope="session")
def chains(cohort: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, Run]:
    """The thin chain under the profile reproducible: "local", in each engine and, where both can be had, in Apptainer by SLURM
    ("slurm,apptainer"). All at a time: each has stretches in which it fills one core only."""
    settings: dict[str, dict] = {name: {} for name in ["local", *ENGINES]}
    if "apptainer" in ENGINES and not lacking():
        (cohort / "quick.config").write_text(QUICK)
        settings["slurm,apptainer"] = {"config": cohort / "quick.config", "env": request.getfixturevalue("cluster").env}

    def chain(profiles: str) -> Run:
        launch = tmp_path_factory.mktemp(profiles.replace(",", "-"))
        words = ("--input", cohort / "cohort.csv", "-params-file", cohort / "thin.json")
        return nextflow(launch, *words, "-profile", f"test,reproducible,{profiles}", **settings[profiles])

    with ThreadPoolExecutor() as pool:
        return dict(zip(settings, pool.map(chain, settings), strict=True))
