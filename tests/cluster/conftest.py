"""A real SLURM of two nodes on this machine, and the pipeline with a stand-in for `lesionforge`, both brought down at the end."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEXTFLOW = Path(os.environ.get("NEXTFLOW") or ROOT / "bin" / "nextflow")
PACKAGES = ["slurm-wlm", "munge"]
ROWS = [("01", "patient", "train"), ("02", "patient", "test"), ("03", "healthy", "train"), ("04", "patient", "train")]
# So impatient because the cluster is this machine alone.
QUICK = """
executor {
    pollInterval = '500 ms'; queueStatInterval = '1 sec'; exitReadTimeout = '8 sec'
    retry.delay = '2 sec'; retry.maxDelay = '5 sec'
}
process { cpus = 1; resourceLimits = [cpus: 1] }
"""


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 600) -> None:
    """Wait until a condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds} s in vain for {what}"
        time.sleep(0.1)


def run(*command: str | Path, **options: object) -> str:
    """Run a program that must succeed; returns what it prints."""
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, **options).stdout  # type: ignore[call-overload, no-any-return]


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Cluster:
    """SLURM with its own munge, ports and files in one folder; a partition `main` of the nodes n1 and n2, which says it
    has a GPU, and the partitions `cpu` and `gpu` of one each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        host, (controller, *nodes) = socket.gethostname().split(".")[0], free_ports(3)
        for name in ("state", "spool/n1", "spool/n2", "log"):
            (folder / name).mkdir(parents=True)
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)
        lines = [
            *("ClusterName=test", f"SlurmctldHost={host}(127.0.0.1)", f"SlurmctldPort={controller}", "SlurmUser=root"),
            *("AuthType=auth/munge", f"AuthInfo=socket={folder}/munge.socket", "MpiDefault=none", "ReturnToService=2"),
            *("ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none", "SlurmdParameters=config_overrides"),
            *("SelectType=select/cons_tres", "SelectTypeParameters=CR_Core_Memory", "DefMemPerCPU=500"),
            *("JobAcctGatherType=jobacct_gather/linux", "JobAcctGatherFrequency=1", "JobAcctGatherParams=OverMemoryKill"),
            *("SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0", "KillWait=2", "InactiveLimit=0"),
            *(
                "SlurmctldTimeout=30",
                "SlurmdTimeout=10",
                f"StateSaveLocation={folder}/state",
                f"SlurmdSpoolDir={folder}/spool/%n",
            ),
            *(f"SlurmctldPidFile={folder}/slurmctld.pid", f"SlurmdPidFile={folder}/slurmd-%n.pid"),
            *(f"SlurmctldLogFile={folder}/log/slurmctld.log", f"SlurmdLogFile={folder}/log/slurmd-%n.log"),
            *(
                f"NodeName=n{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=32000 {gpu}"
                for number, port, gpu in zip((1, 2), nodes, ("", "Gres=gpu:1"), strict=True)
            ),
            "GresTypes=gpu",
            "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
            "PartitionName=cpu Nodes=n1 MaxTime=INFINITE State=UP",
            "PartitionName=gpu Nodes=n2 MaxTime=INFINITE State=UP",
        ]
        (folder / "gres.conf").write_text("NodeName=n2 Name=gpu File=/dev/zero\n")
        self.conf.write_text("\n".join(lines) + "\n")
        self.env = os.environ | {"SLURM_CONF": str(self.conf)}

    def start(self, name: str, *command: str | Path) -> None:
        """Start a daemon in the foreground of a process of ours."""
        log = (self.folder / "log" / f"{name}.out").open("ab")
        self.daemons[name] = subprocess.Popen(list(command), stdout=log, stderr=log, env=self.env, start_new_session=True)

    def up(self) -> None:
        """Start everything; ready when both nodes are idle."""
        at = self.folder
        options = {
            "key-file": "munge.key",
            "socket": "munge.socket",
            "pid-file": "munge.pid",
            "log-file": "munge.log",
            "seed-file": "munge.seed",
        }
        munge = [f"--{name}={at / file}" for name, file in options.items()]
        self.start("munged", "munged", "--foreground", "--force", *munge)
        wait_for((at / "munge.socket").exists, "munge")
        self.start_controller()
        for node in ("n1", "n2"):
            self.start_node(node)
        wait_for(
            lambda: set(self.ask("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split()) == {"n1", "n2"}, "both nodes of SLURM"
        )

    def start_controller(self) -> None:
        """Start slurmctld, which knows from its folder what went before."""
        self.start("slurmctld", "slurmctld", "-D")

    def stop_controller(self) -> None:
        """Stop slurmctld as an administrator does; it writes down what it knows."""
        daemon = self.daemons.pop("slurmctld")
        daemon.terminate()
        daemon.wait(timeout=60)

    def start_node(self, node: str) -> None:
        """Start the slurmd of a node."""
        self.start(node, "slurmd", "-D", "-N", node)

    def kill(self, name: str) -> None:
        """End a daemon without a word to anybody, and all it started: on a node its jobs, wherever they went."""
        daemon = self.daemons.pop(name)
        daemon.kill()
        daemon.wait()
        for process in self.jobs_on(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def jobs_on(self, node: str) -> list[int]:
        """The processes of a node's jobs; first those that would still tell the controller how a job ended."""
        marks = {f"SLURMD_NODENAME={node}".encode(), f"SLURM_CONF={self.conf}".encode()}
        processes, parents = [], []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if marks <= set((folder / "environ").read_bytes().split(b"\0")):
                    processes.append(int(folder.name))
                    parents.append(int((folder / "stat").read_text().rsplit(") ", 1)[1].split()[1]))
            except OSError:
                continue
        return [parent for parent in set(parents) if self.is_step(parent)] + processes

    def is_step(self, process: int) -> bool:
        """Whether a process is the keeper of a job step."""
        try:
            return Path(f"/proc/{process}/comm").read_text().startswith("slurmstepd")
        except OSError:
            return False

    def logged(self) -> str:
        """What the daemons wrote down."""
        return "".join(path.read_text(errors="replace") for path in sorted((self.folder / "log").glob("*.log")))

    def ask(self, *command: str) -> str:
        """What a program of SLURM prints; nothing where it fails."""
        return subprocess.run(
            command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
        ).stdout

    def down(self) -> None:
        """End everything."""
        self.ask("scancel", "--user", "root")
        for name in list(reversed(self.daemons)):
            self.kill(name)


def lacking() -> str:
    """Why there can be no SLURM here, or an empty text; installs it where that can be done."""
    if all(shutil.which(name) for name in ("slurmctld", "slurmd", "sbatch", "munged")):
        return "" if os.geteuid() == 0 else "only root can start SLURM"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return f"SLURM is not installed, and installing it ({' '.join(PACKAGES)}) takes root on Debian or Ubuntu"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": False}
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *PACKAGES]
    for command in (install, ["apt-get", "update"], install):
        if subprocess.run(
            command, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, **quiet
        ).returncode == 0 and shutil.which("slurmctld"):  # type: ignore[call-overload]
            return ""
    return f"apt-get install {' '.join(PACKAGES)} failed"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly, once, what was skipped."""
    for sentence in {report.longrepr[2] for report in terminalreporter.stats.get("skipped", []) if "SLURM" in report.longrepr[2]}:
        terminalreporter.write_line(f"*** {sentence.removeprefix('Skipped: ')} ***", bold=True, yellow=True)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The running SLURM."""
    reason = lacking()
    if reason:
        pytest.skip(f"THE TESTS ON SLURM ARE SKIPPED: {reason}.")
    slurm = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        slurm.up()
        yield slurm
    finally:
        slurm.down()


@dataclass
class Run:
    """One run of the pipeline, going on or ended."""

    process: subprocess.Popen[str]
    log: Path
    outdir: Path

    def end(self) -> Run:
        """Wait for it."""
        self.process.wait(timeout=1200)
        return self

    def kill(self) -> None:
        """End the head process with SIGKILL."""
        self.process.kill()
        self.process.wait()

    @property
    def code(self) -> int:
        return self.process.returncode

    @property
    def printed(self) -> str:
        return self.log.read_text()

    @property
    def tasks(self) -> list[dict[str, str]]:
        """One row for each task that ended, from the trace."""
        trace = self.outdir / "pipeline_info" / "trace.tsv"
        with trace.open(newline="") as rows:
            return [row | {"process": row["process"].rsplit(":", 1)[1]} for row in csv.DictReader(rows, delimiter="\t")]

    def named(self, *statuses: str) -> Counter[str]:
        """How many tasks of each process have one of the statuses."""
        return Counter(task["process"] for task in self.tasks if task["status"] in statuses)


@dataclass(frozen=True)
class Workshop:
    """A copy of the pipeline that a test may edit, with the stand-in for `lesionforge`, a folder to launch in, and a sheet."""

    folder: Path
    write_sheet: Callable[[Path, list[tuple[str, str, str]]], Path]
    runs: list[Run] = field(default_factory=list)

    @property
    def control(self) -> Path:
        """The folder that tells the stand-in what goes wrong."""
        return self.folder / "control"

    def cause(self, fault: str, what: str, content: str = "") -> Path:
        """Ask the stand-in for a fault; removing the file that is returned takes it back."""
        path = self.control / fault / what
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        return path

    def wait_until_held(self, what: str) -> str:
        """Wait until a command that is to be held has begun; returns the node it is on."""
        held = self.control / "held" / what
        wait_for(lambda: held.exists() or not self.are_going(), what)
        assert held.exists(), f"the run ended before {what}:\n{self.runs[-1].printed}"
        time.sleep(0.3)
        return held.read_text()

    def are_going(self) -> bool:
        """Whether any run of the workshop has not ended."""
        return any(run.process.poll() is None for run in self.runs)

    def log(self) -> Counter[str]:
        """How often each command was done to its end."""
        return Counter((self.control / "log").read_text().splitlines())

    def sheet(self, rows: list[tuple[str, str, str]] = ROWS, name: str = "cohort.csv") -> Path:
        """The sheet of some subjects, their scans beside it; one that is there is left as it is."""
        path = self.folder / "data" / name
        path.parent.mkdir(exist_ok=True)
        return path if path.exists() else self.write_sheet(path, rows)

    def start(
        self,
        *options: str | Path,
        sheet: Path | None = None,
        outdir: str | Path = "results",
        launch: str = "launch",
        env: dict[str, str] | None = None,
    ) -> Run:
        """Start a run and leave it going."""
        at = self.folder / launch
        at.mkdir(exist_ok=True)
        (at / "quick.config").write_text(QUICK)
        out, log = at / outdir, at / f"run-{len(list(at.glob('run-*')))}.log"
        command = [
            NEXTFLOW,
            "run",
            self.folder / "main.nf",
            "-c",
            "quick.config",
            "-ansi-log",
            "false",
            "--synthetic",
            "3",
            "--outdir",
            out,
        ]
        command += ["--input", sheet or self.sheet(), *options]
        with log.open("w") as printed:
            process = subprocess.Popen(command, cwd=at, env=env, stdout=printed, stderr=subprocess.STDOUT, text=True)
        self.runs.append(Run(process, log, out))
        return self.runs[-1]

    def edit(self, path: str, content: str) -> None:
        """Append to a file of the copy."""
        with (self.folder / path).open("a") as file:
            file.write(content)


@pytest.fixture(scope="session")
def make_workshop(
    tmp_path_factory: pytest.TempPathFactory, sheet_writer: Callable[..., Path]
) -> Iterator[Callable[[], Workshop]]:
    """A function that makes a workshop; no run outlives the tests."""
    made = []

    def make() -> Workshop:
        folder = tmp_path_factory.mktemp("workshop")
        for name in ("main.nf", "nextflow.config", "nextflow_schema.json"):
            shutil.copy(ROOT / name, folder)
        shutil.copytree(ROOT / "modules", folder / "modules")
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "python" / "src" / "lesionforge", folder / "python" / "src" / "lesionforge", ignore=ignored)
        shutil.copy(Path(__file__).parent / "stand_in.py", folder)
        (folder / "control").mkdir()
        (folder / "control" / "log").touch()
        program = folder / ".venv" / "bin" / "lesionforge"
        program.parent.mkdir(parents=True)
        real = ROOT / ".venv" / "bin" / "lesionforge"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "{folder}/stand_in.py" "{folder}/control" "{real}" "$@"\n')
        program.chmod(0o755)
        made.append(Workshop(folder, sheet_writer))
        return made[-1]

    yield make
    for run in [run for workshop in made for run in workshop.runs if run.process.poll() is None]:
        run.kill()


@pytest.fixture(scope="session")
def shared(make_workshop: Callable[[], Workshop]) -> Workshop:
    """The workshop of the tests that edit nothing in it."""
    return make_workshop()


@pytest.fixture(scope="session")
def undisturbed(shared: Workshop) -> Run:
    """A run to which nothing happens, on this machine without SLURM."""
    run = shared.start(launch="undisturbed").end()
    assert run.code == 0, run.printed
    return run


@pytest.fixture
def workshop(make_workshop: Callable[[], Workshop]) -> Workshop:
    """A workshop of a test's own."""
    return make_workshop()


def results(outdir: Path) -> dict[str, str]:
    """SHA-256 of every file of the results by its path, hidden ones too; what Nextflow writes about the run is left out."""
    files = [path for path in sorted(outdir.rglob("*")) if path.is_file() and "pipeline_info" not in path.parts]
    return {str(path.relative_to(outdir)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="session")
def digests() -> Callable[[Path], dict[str, str]]:
    """`results`, for tests."""
    return results


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 260 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    disk = tmp_path / "small"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=260m", "tmpfs", disk)
    yield disk
    run("umount", "--lazy", disk)
