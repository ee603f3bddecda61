"""The profile slurm on a real SLURM, through the faults that only a cluster has."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from cluster_of_two import wait_for

from lesionforge.images import read_tsv

ROOT = Path(__file__).resolve().parents[2]
# Less than the stand-in takes when asked to, so that SLURM ends it; twice as much is enough.
SCARCE = """
process {
    resourceLimits = [cpus: 1, memory: 30.GB]
    withName: LEVELS { memory = { 300.MB * task.attempt } }
    withName: STRIP { time = { 1.min * task.attempt } }
}
"""


NOT_SUBMITTED = "Failed to submit process"
NO_QUEUE = (
    "The queue {} (--slurm_queue, or in a file for -c) is no partition of this cluster; "
    "give one of main, cpu, gpu, short, shorter."
)


@pytest.fixture(scope="session")
def on_slurm(cluster, shared):
    """A function (options, launch folder) that starts a run with the profiles slurm and gpu."""

    def start(*options, launch, **more):
        return shared.start("-profile", "slurm,gpu", *options, launch=launch, env=cluster.env, **more)

    return start


@pytest.fixture(scope="session")
def troubled(cluster, shared, on_slurm):
    """A run whose tasks run out of time and memory, whose controller is restarted, and one of whose nodes dies under a task."""
    scarce = shared.folder / "scarce.config"
    scarce.write_text(SCARCE)
    first, too_long = shared.cause("hold", "cohort"), shared.cause("hold", "prepare strip sub-03")
    hog = shared.cause("hog", "synthesize levels sub-04", "6")
    on_node = shared.cause("hold", "register sub-01")
    options = ("--slurm_queue", "main", "--slurm_account", "lab", "--slurm_gpu", "gpus=1")
    options += ("--slurm_options", "nice=1 comment=x")
    run = on_slurm("-c", ROOT / "docs" / "site.config", "-c", scarce, *options, launch="troubled")

    try:
        # The first task ends, and those after it are to be submitted, while the controller is away.
        shared.wait_until_held("cohort")
        cluster.stop_controller()
        first.unlink()
        wait_for(lambda: NOT_SUBMITTED in nextflow_log(run) or run.process.poll() is not None, "a submission that fails")
        cluster.start_controller()

        # Its first try waits until SLURM ends it; the second one does not.
        wait_for_try(run, "STRIP", "sub-03")
        too_long.unlink()

        node = shared.wait_until_held("register sub-01")
        cluster.lose_node(node)
        on_node.unlink()
        wait_for_try(run, "TO_TEMPLATE", "sub-01", number=2)
        cluster.return_node(node)
        return run.end()
    finally:
        # Later runs of the workshop are not to wait for these.
        for fault in (first, too_long, on_node, hog):
            fault.unlink(missing_ok=True)


def nextflow_log(run):
    """What Nextflow wrote down of its doings."""
    return (run.log.parent / ".nextflow.log").read_text()


def wait_for_try(run, process, tag, number=1):
    """Wait until a task's try of this number has ended, for good or ill."""
    until = time.monotonic() + 900
    while len(tries(run, process, tag)) < number:
        assert run.process.poll() is None and time.monotonic() < until, run.printed
        time.sleep(0.5)


def tried(run, process, tag, *columns):
    """What the trace has in these columns for each try of a task."""
    return [[task[name] for name in columns] for task in run.tasks if (task["process"], task["tag"]) == (process, tag)]


def tries(run, process, tag):
    """(exit code, attempt) of each try of a task."""
    return tried(run, process, tag, "exit", "attempt")


def test_the_run_ends_as_if_nothing_had_happened(troubled, undisturbed, digests):
    assert troubled.code == 0, troubled.printed
    assert digests(troubled.outdir) == digests(undisturbed.outdir)


def test_a_task_past_its_time_limit_is_tried_again_with_more(troubled):
    (first, _), (second, attempt) = tries(troubled, "STRIP", "sub-03")
    assert first in [str(code) for code in range(130, 146)]
    assert (second, attempt) == ("0", "2")
    _, (folder,) = tried(troubled, "STRIP", "sub-03", "workdir")
    assert "#SBATCH -t 00:02:00" in (Path(folder) / ".command.run").read_text().splitlines()


def test_a_task_killed_for_memory_is_tried_again_with_more(troubled, cluster):
    assert "exceeded memory limit" in cluster.logged()
    (first, _), (second, attempt) = tries(troubled, "LEVELS", "sub-04")
    assert first not in ("0", "1", "2")
    assert (second, attempt) == ("0", "2")
    assert tried(troubled, "LEVELS", "sub-04", "memory") == [["300 MB"], ["600 MB"]]


def test_a_task_whose_node_is_lost_runs_on_another(troubled, cluster):
    assert "on failed node" in cluster.logged()
    (first, _), (second, attempt) = tries(troubled, "TO_TEMPLATE", "sub-01")
    assert first in ("-", "2147483647")
    assert (second, attempt) == ("0", "2")
    nodes = [
        re.findall(rf"JobId={job}(?:\(\d+\))? (?:NodeList=|in \S+ on )(\w+)", cluster.logged())
        for (job,) in tried(troubled, "TO_TEMPLATE", "sub-01", "native_id")
    ]
    assert sorted(map(set, nodes), key=min) == [{"n1"}, {"n2"}], nodes


def test_a_controller_that_restarts_costs_no_task(troubled):
    """All that failed was meant to, though jobs could not be submitted for a while."""
    assert NOT_SUBMITTED in nextflow_log(troubled)
    failed = {(task["process"], task["tag"]) for task in troubled.tasks if task["status"] != "COMPLETED"}
    assert failed == {("STRIP", "sub-03"), ("LEVELS", "sub-04"), ("TO_TEMPLATE", "sub-01")}


@pytest.mark.slow
def test_jobs_of_a_killed_head_process_are_ended_by_the_command_of_the_docs_and_resume_does_the_rest(
    cluster, shared, on_slurm, undisturbed, digests
):
    what, options = "prepare strip sub-02", ("--slurm_queue", "main", "--slurm_account", "lab", "--slurm_gpu", "gpus=1")
    hold = shared.cause("hold", what)
    run = on_slurm(*options, launch="orphaned")
    shared.wait_until_held(what)
    wait_for_try(run, "STRIP", "sub-01")
    run.kill()
    before = {task["hash"] for task in run.tasks if task["status"] == "COMPLETED"}
    (command,) = [line for line in (ROOT / "docs" / "running.md").read_text().splitlines() if "scancel" in line]
    assert cluster.ask("squeue", "-h", "-o", "%Z").startswith(str(run.outdir.parent / "work"))
    subprocess.run(["bash", "-c", command], cwd=run.outdir.parent, env=cluster.env, check=True)
    wait_for(lambda: not cluster.ask("squeue", "-h"), "the jobs to end")
    hold.unlink()
    (shared.control / "held" / what).unlink()
    run = on_slurm("-resume", *options, launch="orphaned").end()
    assert run.code == 0, run.printed
    assert before and before <= {task["hash"] for task in run.tasks if task["status"] == "CACHED"}
    assert digests(run.outdir) == digests(undisturbed.outdir)


@pytest.mark.slow
def test_a_job_that_slurm_ended_is_listed_as_such(cluster, shared, on_slurm):
    """With no more tries, so that it fails for good."""
    site, hold = shared.folder / "once.config", shared.cause("hold", "prepare strip sub-02")
    site.write_text("process { maxRetries = 0; withName: STRIP { time = '1 min' } }\n")
    options = ("--slurm_queue", "main", "--slurm_account", "lab", "--slurm_gpu", "gpus=1", "--on_subject_error", "skip")
    run = on_slurm("-c", site, *options, launch="ended").end()
    hold.unlink()
    assert run.code != 0
    (row,) = read_tsv(run.outdir / "pipeline_info" / "failed.tsv").to_dict("records")
    assert (row["process"], row["tag"]) == ("STRIP", "sub-02")
    assert row["cause"].startswith("ended from outside: memory, time, or its node"), row


def test_uniform_tasks_are_submitted_as_job_arrays(troubled):
    """What has a GPU goes alone, and what is there once."""
    in_arrays = {task["process"] for task in troubled.tasks if "_" in task["native_id"]}
    prepared = {"STRIP", "ALIGN", "TISSUES", "QUALITY", "LEVELS"}
    assert in_arrays == prepared | {"TO_TEMPLATE", "QUALITY_OF_TRANSFORM", "PAIR", "TRANSPLANT", "EVALUATE"}


def test_queue_account_and_gpu_reach_the_jobs_that_need_them(troubled):
    """SLURM took them: the jobs ended well."""
    scripts = {}
    for task in troubled.tasks:
        (folder,) = (troubled.outdir.parent / "work").glob(f"{task['hash']}*")
        scripts.setdefault(task["process"], []).append((folder / ".command.run").read_text())
    assert all("#SBATCH --account=lab" in text for texts in scripts.values() for text in texts)
    assert all("--nice=1 --comment=x" in text for texts in scripts.values() for text in texts)
    asking = {process for process, texts in scripts.items() if all("--gpus=1" in text for text in texts)}
    assert asking == {"TRAIN_GENERATOR", "PAINT", "TRAIN", "SEGMENT"}
    assert all(f"#SBATCH -p {'gpu' if process in asking else 'main'}" in text for process in scripts for text in scripts[process])
    assert not any("--gpus=1" in text for process in scripts.keys() - asking for text in scripts[process])


def test_a_training_that_asks_for_a_gpu_takes_nothing_less(troubled):
    for task in troubled.tasks:
        (folder,) = (troubled.outdir.parent / "work").glob(f"{task['hash']}*")
        demands = "--device gpu" in (folder / ".command.sh").read_text()
        assert demands == (task["process"] in ("TRAIN_GENERATOR", "TRAIN")), task["name"]


def test_a_job_that_slurm_refuses_is_no_broken_scan(cluster, shared, on_slurm):
    hold = shared.cause("hold", "prepare strip sub-01")
    options = ("--slurm_queue", "main", "--slurm_account", "lab", "--on_subject_error", "skip")
    run = on_slurm(*options, launch="drained")
    shared.wait_until_held("prepare strip sub-01")
    # By their folder, as docs/running.md tells the jobs of a run from others.
    folders = [line.split()[1] for line in cluster.ask("squeue", "--me", "--noheader", "--format", "%A %Z").splitlines()]
    assert folders and all(folder.startswith(f"{run.outdir.parent / 'work'}/") for folder in folders), folders
    cluster.ask("scontrol", "update", "PartitionName=main", "State=DRAIN")
    hold.unlink()
    run.end()
    cluster.ask("scontrol", "update", "PartitionName=main", "State=UP")
    assert run.code != 0
    assert "did not get through" not in run.printed, run.printed
    assert not run.named("COMPLETED")["REPORT"]
    run = on_slurm("-resume", *options, launch="drained").end()
    assert run.code == 0, run.printed
    assert run.named("CACHED")["STRIP"] == 4
    scripts = [path.read_text().splitlines() for path in run.outdir.parent.glob("work/??/*/.command.run")]
    (asking,) = {line for lines in scripts for line in lines if "gres" in line}
    assert asking.split() == ["#SBATCH", "--account=lab", "--gres=gpu:1"], "as many sites ask for a GPU, by default"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--slurm_queue", "nowhere"), NO_QUEUE.format("nowhere")),
        (("-c", "elsewhere"), NO_QUEUE.format("elsewhere")),
        (
            ("--slurm_queue", "cpu"),
            "-profile gpu asks for a GPU, but no node of the partition cpu has one (sinfo shows no GRES gpu)",
        ),
        (("-c", "cpu"), "-profile gpu asks for a GPU, but no node of the partition cpu has one (sinfo shows no GRES gpu)"),
        (
            ("--slurm_queue", "short"),
            "The partition short allows jobs of 120 minutes at most, and tasks may ask for up to 3d, so that they would wait "
            "for ever; give --slurm_time 120m",
        ),
        (("--slurm_queue", "short", "--slurm_time", "3h"), "tasks may ask for up to 3h"),
        (("--slurm_queue", "short,shorter"), "The partition short allows jobs of 120 minutes at most"),
    ],
    ids=["partition", "partition of a file", "gpu", "gpu of a file", "time", "less time", "two times"],
)
def test_what_the_cluster_does_not_have_is_said_before_any_work(shared, on_slurm, options, said):
    if options[0] == "-c":
        site = shared.folder / "site.config"
        site.write_text(f"process {{ withLabel: gpu {{ queue = '{options[1]}' }} }}\n")
        options = ("-c", site)
    run = on_slurm(*options, launch="refused").end()
    assert run.code != 0
    assert said in run.printed
    assert "Submitted process" not in run.printed


def test_work_done_on_this_machine_is_not_done_again_on_slurm(cluster, shared, undisturbed):
    run = shared.start("-profile", "slurm", "-resume", launch="undisturbed", env=cluster.env).end()
    assert run.code == 0, run.printed
    assert run.named("CACHED") == undisturbed.named("COMPLETED", "CACHED")
    assert not run.named("COMPLETED"), run.printed


def test_a_time_of_one_process_in_a_file_is_compared_too(shared, on_slurm):
    site = shared.folder / "times.config"
    labels = [f"withLabel: {label} {{ time = '10 min' }}" for label in ("cpu_small", "cpu_medium", "cpu_large", "gpu")]
    site.write_text("\n".join(["process {", *labels, "withName: TRAIN { time = { 50.min * task.attempt } }", "}"]))
    run = on_slurm("-c", site, "--slurm_queue", "short", launch="refused").end()
    assert run.code != 0
    assert "allows jobs of 120 minutes at most, and tasks may ask for up to 2h 30m" in run.printed
    assert "Submitted process" not in run.printed


def test_without_a_queue_the_default_partition_must_have_what_is_asked_for(cluster, shared, on_slurm):
    cluster.ask("scontrol", "update", "PartitionName=cpu", "Default=YES")
    try:
        run = on_slurm(launch="refused").end()
    finally:
        cluster.ask("scontrol", "update", "PartitionName=main", "Default=YES")
    assert run.code != 0
    assert "no node of the partition cpu has one (sinfo shows no GRES gpu)" in run.printed
    assert "Submitted process" not in run.printed


@pytest.mark.parametrize(
    ("options", "refused"),
    [((), "SBATCH_GRES"), (("--slurm_queue", "main"), "SBATCH_PARTITION SBATCH_GRES")],
    ids=["gpu", "queue"],
)
def test_variables_that_sbatch_lets_count_more_are_refused(cluster, shared, options, refused):
    """sbatch lets them: the job of a script that asks for another partition goes to theirs."""
    env = cluster.env | {"SBATCH_PARTITION": "gpu", "SBATCH_GRES": "gpu:1", "SBATCH_ACCOUNT": "lab"}
    script = shared.folder / "job.sh"
    script.write_text("#!/bin/bash\n#SBATCH -p main -t 1 -o /dev/null\ntrue\n")
    number = subprocess.check_output(["sbatch", "--parsable", script], env=env, text=True).strip()
    assert "Partition=gpu" in subprocess.check_output(["scontrol", "show", "job", number], env=env, text=True).split()
    run = shared.start("-profile", "slurm,gpu", "--slurm_account", "lab", *options, launch="refused", env=env).end()
    assert run.code != 0
    assert (
        f"The environment sets {refused}, which sbatch lets count more than what the run asks for; start again after"
        in run.printed
    )
    assert "Submitted process" not in run.printed


@pytest.mark.parametrize("setting", ["'--qos=long'", "{ '--qos=long' }"], ids=["text", "closure"])
def test_options_of_a_file_do_not_take_the_place_of_account_and_gpu(shared, on_slurm, setting):
    site = shared.folder / "options.config"
    site.write_text(f"process.clusterOptions = {setting}\n")
    run = on_slurm("-c", site, "--slurm_account", "lab", launch="refused").end()
    assert run.code != 0
    assert "clusterOptions in a file for -c takes the place of what asks for the account, the GPU and" in run.printed
    assert "Submitted process" not in run.printed


def test_a_partition_that_allows_less_time_is_kept_to(shared, on_slurm, undisturbed):
    """What is refused is the cohort, which comes last."""
    other = shared.sheet([("81", "patient", "train"), ("82", "patient", "test")], "elsewhere.csv")
    options = ("--slurm_queue", "short,gpu", "--slurm_time", "2h")
    run = on_slurm(*options, sheet=other, launch="refused", outdir=undisturbed.outdir).end()
    assert run.code != 0
    assert "holds the results of another cohort" in run.printed


def test_gpus_may_have_a_partition_of_their_own(shared, on_slurm, undisturbed):
    """What is refused is the cohort, which comes last."""
    other = shared.sheet([("81", "patient", "train"), ("82", "patient", "test")], "elsewhere.csv")
    options = ("-c", ROOT / "docs" / "site.config", "--slurm_queue", "cpu")
    run = on_slurm(*options, sheet=other, launch="refused", outdir=undisturbed.outdir).end()
    assert run.code != 0
    assert "holds the results of another cohort" in run.printed
    assert "asks for a GPU" not in run.printed


def test_a_slurm_that_does_not_answer_is_said_before_any_work(cluster, shared, tmp_path):
    run = shared.start("-profile", "slurm", launch="refused", env=cluster.env | {"SLURM_CONF": str(tmp_path / "none.conf")}).end()
    assert run.code != 0
    assert "SLURM does not answer (sinfo says: " in run.printed
    assert "Submitted process" not in run.printed


@pytest.mark.skipif(any(Path(name).exists() for name in ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")), reason="has a GPU")
def test_a_gpu_that_this_machine_does_not_have_is_said_before_any_work(shared):
    run = shared.start("-profile", "gpu", launch="refused").end()
    assert run.code != 0
    assert "-profile gpu asks for a GPU, but this machine has none; leave the profile gpu out" in run.printed
    assert "Submitted process" not in run.printed


def test_a_machine_without_slurm_is_told_so(shared, tmp_path):
    for folder in os.environ["PATH"].split(":"):
        for program in Path(folder).glob("*"):
            if program.name not in ("sbatch", "squeue", "sinfo", "scancel") and not (tmp_path / program.name).exists():
                (tmp_path / program.name).symlink_to(program)
    run = shared.start("-profile", "slurm", launch="refused", env=os.environ | {"PATH": str(tmp_path)}).end()
    assert run.code != 0
    assert "-profile slurm needs SLURM's sbatch, which is not on PATH here" in run.printed
