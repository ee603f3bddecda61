"""A real SLURM of two nodes on this machine, for tests; the fixture `cluster` brings it up once and takes it down at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

APT_INSTALL = Path(__file__).parent / "apt-install"
PACKAGES = ["slurm-wlm", "munge"]


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 600) -> None:
    """Wait until a condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds} s in vain for {what}"
        time.sleep(0.1)


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
            *("SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0", "KillWait=10", "InactiveLimit=0"),
            *(
                "SlurmctldTimeout=30",
                "SlurmdTimeout=10",
                f"StateSaveLocation={folder}/state",
                f"SlurmdSpoolDir={folder}/spool/%n",
            ),
            *(f"SlurmctldPidFile={folder}/slurmctld.pid", f"SlurmdPidFile={folder}/slurmd-%n.pid"),
            *(f"SlurmctldLogFile={folder}/log/slurmctld.log", f"SlurmdLogFile={folder}/log/slurmd-%n.log"),
            *(
                f"NodeName=n{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=32000 {gres}"
                for number, port, gres in zip((1, 2), nodes, ("Gres=lscratch:800", "Gres=lscratch:800,gpu:1"), strict=True)
            ),
            "GresTypes=gpu,lscratch",
            "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
            "PartitionName=cpu Nodes=n1 MaxTime=INFINITE State=UP",
            "PartitionName=gpu Nodes=n2 MaxTime=INFINITE State=UP",
            "PartitionName=short Nodes=ALL MaxTime=2:00:00 State=UP",
            "PartitionName=shorter Nodes=n1 MaxTime=1:00:00 State=UP",
        ]
        (folder / "gres.conf").write_text("NodeName=n2 Name=gpu File=/dev/zero\nNodeName=n[1-2] Name=lscratch Count=800\n")
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

    def lose_node(self, node: str) -> None:
        """End a node that runs one job when no other is left on it, so that which job it takes along is no matter of chance."""
        self.ask("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=to be lost")
        wait_for(lambda: len(self.ask("squeue", "-h", "-w", node).splitlines()) == 1, f"one job alone on {node}")
        self.kill(node)

    def return_node(self, node: str) -> None:
        """Bring a lost node back."""
        self.ask("scontrol", "update", f"NodeName={node}", "State=UNDRAIN")
        self.start_node(node)

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
    words = [APT_INSTALL, *PACKAGES]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode == 0 and shutil.which("slurmctld"):
        return ""
    return f"SLURM is not installed: {(done.stdout.splitlines() or ['apt-get said nothing'])[-1]}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly, once, what was skipped."""
    sentences = {report.longrepr[2] for report in terminalreporter.stats.get("skipped", [])}
    for sentence in sorted(text for text in sentences if "SKIPPED" in text or "NOT TESTED" in text):
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
