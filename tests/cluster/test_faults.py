"""What happens to a run on the way, on any machine: nothing finished is lost or done again, nothing half-written is published."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
from cluster_of_two import wait_for

from lesionforge.images import read_tsv

# A command of each stage that waits for those above it, as the stand-in names it.
STAGES = {
    "cohort": "cohort",
    "prepare": "prepare strip sub-01",
    "register": "register sub-01",
    "synthesize": "synthesize paint sub-syn0001",
    "assemble": "assemble augmented",
    "train": "train augmented",
    "segment": "segment sub-02 augmented",
    "evaluate": "evaluate scan sub-02",
    "report": "report report",
}


def finished(run):
    """The folders of the tasks that a run knows to have ended well."""
    return {task["hash"] for task in run.tasks if task["status"] in ("COMPLETED", "CACHED")}


def test_a_head_process_killed_in_every_stage_loses_nothing(shared, undisturbed, digests):
    """One run, killed with SIGKILL in each stage in its turn and resumed."""
    before, resume = set(), ()
    for what in STAGES.values():
        hold = shared.cause("hold", what)
        run = shared.start(*resume, launch="killed")
        shared.wait_until_held(what)
        time.sleep(1)
        run.kill()
        hold.unlink()
        (shared.control / "held" / what).unlink()
        assert before <= finished(run), what
        # Copies under way lie in .partial, of which the next start knows.
        published = {name: digest for name, digest in digests(run.outdir).items() if not name.startswith(".partial/")}
        assert published.items() <= digests(undisturbed.outdir).items(), what
        before, resume = finished(run), ("-resume",)
    run = shared.start("-resume", launch="killed").end()
    assert run.code == 0, run.printed
    assert before <= {task["hash"] for task in run.tasks if task["status"] == "CACHED"}
    assert digests(run.outdir) == digests(undisturbed.outdir)


def test_a_copy_into_the_output_folder_that_was_cut_off_is_none(shared, undisturbed, digests):
    """What a head process leaves that dies while it copies: a folder of partial copies, and results that lack one."""
    out = undisturbed.outdir
    shutil.copytree(out.parent, shared.folder / "cut", symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(out / "train" / "real")
    (out / ".partial" / "train-real" / "new").mkdir(parents=True)
    (out / ".partial" / "train-real" / "new" / "model.json").write_text("ha")
    (out / "segment" / "scans.tsv").write_text("half")
    run = shared.start("-resume", launch="undisturbed").end()
    assert run.code == 0, run.printed
    assert run.named("COMPLETED") == {}
    assert digests(run.outdir) == digests(shared.folder / "cut" / "results")


def test_no_task_ends_without_a_list_of_its_files(undisturbed):
    """A task that leaves none, such as QUALITY, would count as done where a full disk kept its exit code from being written."""
    work = undisturbed.outdir.parent / "work"
    lists = {
        f"{task['process']} {task['tag']}": next(work.glob(f"{task['hash']}*/.outputs")).read_text() for task in undisturbed.tasks
    }
    assert "QUALITY sub-01" in lists
    assert [name for name, listed in lists.items() if not listed.endswith("\n")] == []


def test_a_damaged_result_of_a_finished_task_is_made_again_and_what_follows_from_it(shared, undisturbed, digests):
    whole = digests(undisturbed.outdir)
    task = next(task for task in undisturbed.tasks if task["process"] == "LEVELS" and task["tag"] == "sub-04")
    (folder,) = (undisturbed.outdir.parent / "work").glob(f"{task['hash']}*")
    damaged = folder / "sub-04" / "sub-04_desc-levels.json"
    damaged.write_text(damaged.read_text()[:10])
    run = shared.start("-resume", launch="undisturbed").end()
    assert run.code == 0, run.printed
    assert f"The files of the finished task in {folder} changed since; it is done again." in run.printed
    assert run.named("COMPLETED")["LEVELS"] == 1
    assert not run.named("COMPLETED").keys() & {"CHECK", "STRIP", "ALIGN", "TISSUES", "QUALITY", "TO_TEMPLATE", "PAIR"}
    assert digests(run.outdir) == whole


def test_a_scan_replaced_between_run_and_resume_is_worked_on_anew(workshop, digests):
    """By one of the same name, size and time."""
    run = workshop.start().end()
    assert run.code == 0, run.printed
    flair = next(workshop.sheet().parent.glob("*04, FLAIR.nii.gz"))
    content, times = bytearray(flair.read_bytes()), (flair.stat().st_atime_ns, flair.stat().st_mtime_ns)
    content[4] ^= 1  # the time in the head of a gzip file
    flair.write_bytes(content)
    os.utime(flair, ns=times)
    run = workshop.start("-resume").end()
    assert run.code == 0, run.printed
    assert run.named("COMPLETED")["CHECK"] == 1
    assert {task["tag"] for task in run.tasks if task["process"] == "STRIP" and task["status"] == "COMPLETED"} == {"sub-04"}
    assert {task["status"] for task in run.tasks if task["process"] == "TRAIN"} == {"COMPLETED"}
    assert digests(run.outdir) == digests(workshop.start(launch="afresh").end().outdir)


def test_two_runs_do_not_write_into_one_folder(shared):
    hold = shared.cause("hold", "prepare strip sub-02")
    first = shared.start(launch="two")
    shared.wait_until_held("prepare strip sub-02")
    # Nextflow itself keeps a second -resume out of the first run's work.
    resumed = shared.start("-resume", launch="two", outdir="elsewhere").end()
    second = shared.start(launch="two").end()
    hold.unlink()
    assert first.end().code == 0, first.printed
    assert second.code != 0
    assert (
        f"--outdir {first.outdir} is being written by another run; wait until that ends, or give another folder."
        in second.printed
    )
    assert "Submitted process" not in second.printed
    assert first.named("COMPLETED")["REPORT"] == 1, "its record is whole"
    assert resumed.code != 0
    assert "Unable to acquire lock on session" in resumed.printed


@pytest.mark.parametrize("place", ["output", "work"])
def test_a_disk_that_fills_up_ends_the_run_and_resume_does_the_rest(shared, undisturbed, digests, small_disk, place):
    hold = shared.cause("hold", "register sub-01")
    options = ["-work-dir", small_disk / "work"] if place == "work" else []
    outdir = small_disk / "results" if place == "output" else "results"
    run = shared.start(*options, launch=f"full-{place}", outdir=outdir)
    shared.wait_until_held("register sub-01")
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(1 << 16))
    hold.unlink()
    (shared.control / "held" / "register sub-01").unlink()
    run.end()
    assert run.code != 0
    full = f"-work-dir {small_disk}/work" if place == "work" else f"--outdir {small_disk}/results"
    full += " lies on a disk with only 0 MB free; free some, or give a folder on another disk."
    assert full in run.printed, run.printed
    if place == "output":
        assert "No space left" in run.printed
        assert "results are not in the output folder, see above" in run.printed
    done = Counter(task["process"] for task in run.tasks if task["status"] == "COMPLETED") if place == "work" else None
    published = digests(run.outdir)
    assert published.items() <= digests(undisturbed.outdir).items()
    refused = shared.start(*options, launch="refused", outdir=outdir).end()
    assert refused.code != 0
    assert full in refused.printed
    assert "Submitted process" not in refused.printed
    ballast.unlink()
    before = shared.log()
    run = shared.start("-resume", *options, launch=f"full-{place}", outdir=outdir).end()
    assert run.code == 0, run.printed
    assert digests(run.outdir) == digests(undisturbed.outdir)
    if place == "output":
        assert shared.log() == before, "nothing was done anew"
    else:
        assert all(run.named("CACHED")[process] >= count for process, count in done.items())


def test_what_a_full_disk_stops_is_not_skipped(workshop):
    """As a command ends whose images found no room, where the run itself, with its small files, still does."""
    workshop.cause("full", "prepare align sub-02")
    run = workshop.start("--on_subject_error", "skip").end()
    assert run.code != 0
    assert {(task["process"], task["exit"]) for task in run.tasks if task["status"] == "FAILED"} == {("ALIGN", "74")}
    assert "did not get through" not in run.printed
    assert not run.named("COMPLETED")["REPORT"]


HOSTILE = b"Error: \xff\x1b[31mred\xc2\x9b31mred\xe2\x80\xaelive\n"
BROKEN = {
    "prepare strip sub-11": "sub-11 did not get through prepare",
    "prepare align sub-12": "sub-12 did not get through prepare",
    "prepare tissues sub-13": "sub-13 did not get through prepare",
    "prepare judge sub-14": "sub-14 did not get through prepare",
    "segment sub-15 model": "sub-15 (model) did not get through segment",
    "evaluate scan sub-16": "sub-16 (model) did not get through evaluate",
}


def test_one_broken_subject_in_each_stage_is_skipped_and_the_others_get_through(workshop, write_cascade_folder, digests):
    """Ten patients, six of which break on their way, each in another place; once mended, results are those of a run without."""
    for what in BROKEN:
        workshop.cause("fail", what)
    # No UTF-8, and what moves a cursor or turns a line around.
    workshop.cause("fail", "evaluate scan sub-16").write_bytes(HOSTILE)
    model = write_cascade_folder(workshop.folder / "model")
    sheet = workshop.sheet([(f"{number}", "patient", "test") for number in range(11, 21)], "ten.csv")
    options = ("--mode", "segment", "--model", model, "--on_subject_error", "skip")
    run = workshop.start(*options, sheet=sheet).end()
    assert run.code != 0
    failed = read_tsv(run.outdir / "pipeline_info" / "failed.tsv").to_dict("records")
    assert len({(row["process"], row["tag"]) for row in failed}) == len(failed) == len(BROKEN)
    for sentence in BROKEN.values():
        assert sentence in run.printed
    for row in failed:
        said = "\ufffd [31mred 31mred live" if row["process"] == "EVALUATE" else "this scan is broken"
        assert (row["exit"], row["cause"]) == ("1", f"Error: {said}")
        assert f"({row['tag']}), exit code 1: {row['cause']} [{row['folder']}]" in run.printed
        assert Path(row["folder"], ".command.err").exists()
    assert {task["exit"] for task in run.tasks if task["status"] == "FAILED"} == {"1"}
    assert Counter(task["process"] for task in run.tasks if task["status"] == "FAILED") == dict.fromkeys(
        ("STRIP", "ALIGN", "TISSUES", "QUALITY", "SEGMENT", "EVALUATE"), 1
    )
    assert {path.name for path in (run.outdir / "segment" / "model").iterdir()} == {f"sub-{n}" for n in range(16, 21)}
    assert (run.outdir / "report" / "index.html").exists()
    assert "Report: " in run.printed
    for what in BROKEN:
        (workshop.control / "fail" / what).unlink()
    run = workshop.start(*options, "-resume", sheet=sheet).end()
    assert run.code == 0, run.printed
    assert not (run.outdir / "pipeline_info" / "failed.tsv").exists()
    assert run.named("COMPLETED")["STRIP"] == 1
    assert run.named("COMPLETED")["EVALUATE"] == 6
    assert run.named("CACHED")["SEGMENT"] == 5
    assert digests(run.outdir) == digests(workshop.start(*options, sheet=sheet, launch="afresh").end().outdir)


def test_in_an_experiment_too_what_is_broken_is_skipped_and_all_else_is_done(workshop, digests):
    """A donor, which costs a synthetic scan, a patient that the generator learns from, made scans of three arms, a network."""
    broken = ["register sub-15", "synthesize levels sub-12", "synthesize paint sub-syn0001"]
    broken += ["assemble classical sub-cla0001", "assemble mix sub-mix0001", "train real"]
    arms = ("--arms", "real,classical,mix,augmented,published", "--on_subject_error", "skip")
    for what in broken:
        workshop.cause("fail", what)
    rows = [(f"{number}", "patient", "train") for number in range(11, 20)]
    sheet = workshop.sheet([*rows, ("20", "patient", "test"), ("21", "healthy", "train")], "many.csv")
    run = workshop.start(*arms, sheet=sheet).end()
    assert run.code != 0
    failed = Counter(task["process"] for task in run.tasks if task["status"] == "FAILED")
    assert failed == dict.fromkeys(("TO_TEMPLATE", "LEVELS", "PAINT", "CLASSICAL", "MIX", "TRAIN"), 1), run.printed
    assert "  real did not get through train" in run.printed
    listed = read_tsv(run.outdir / "pipeline_info" / "failed.tsv")
    assert set(zip(listed["process"], listed["tag"], listed["cause"], strict=True)) == {
        (process, tag, "Error: this scan is broken")
        for process, tag in (
            *(("TO_TEMPLATE", "sub-15"), ("LEVELS", "sub-12"), ("PAINT", "sub-syn0001")),
            *(("CLASSICAL", "sub-cla0001"), ("MIX", "sub-mix0001"), ("TRAIN", "real")),
        )
    }
    done = run.named("COMPLETED")
    assert (done["PAINT"], done["CLASSICAL"], done["TRAIN"], done["EVALUATE"], done["REPORT"]) == (1, 2, 4, 4, 1)
    for task in run.tasks:
        if task["process"] == "TRAIN":
            (script,) = (run.outdir.parent / "work").glob(f"{task['hash']}*/.command.sh")
            own = "--configuration published --steps-of lesionforge" in script.read_text()
            assert own == (task["tag"] == "published"), task["tag"]
    for what in broken:
        (workshop.control / "fail" / what).unlink()
    run = workshop.start(*arms, "-resume", sheet=sheet).end()
    assert run.code == 0, run.printed
    there = run.named("CACHED", "COMPLETED")
    assert (there["PAINT"], there["CLASSICAL"], there["MIX"], there["TRAIN"]) == (3, 3, 3, 5)
    assert digests(run.outdir) == digests(workshop.start(*arms, sheet=sheet, launch="afresh").end().outdir)


def test_a_fold_whose_generator_fails_costs_the_others_nothing(workshop):
    """Of three folds one has nothing painted; its real scans are trained on all the same."""
    workshop.cause("fail", "synthesize train-generator generator_fold-11")
    rows = [("11", "patient", "test"), ("12", "patient", "test"), ("13", "patient", "train"), ("21", "healthy", "train")]
    run = workshop.start("--folds", "leave-one-out", "--on_subject_error", "skip", sheet=workshop.sheet(rows, "folds.csv")).end()
    assert run.code != 0
    failed = read_tsv(run.outdir / "pipeline_info" / "failed.tsv")
    assert list(failed["process"]) == ["TRAIN_GENERATOR"], run.printed
    folds = {f"{arm}_fold-{label}" for arm in ("real", "augmented") for label in ("11", "12", "13")}
    assert {path.name for path in (run.outdir / "train").iterdir()} == folds - {"augmented_fold-11"}
    assert (run.outdir / "report" / "index.html").exists()
    for sentence in ("generator_fold-11 did not get through synthesize", "augmented_fold-11 did not get through assemble"):
        assert f"  {sentence}" in run.printed


def test_tasks_on_the_gpus_of_one_machine_take_turns(shared, tmp_path):
    """A machine whose GPU nobody looks for: one scan is not painted until another is, whichever comes first."""
    site = shared.folder / "turns.config"
    site.write_text("process { withLabel: '(gpu)' { accelerator = 1 } }\n")
    scans = [f"synthesize paint sub-syn000{number}" for number in (1, 2, 3)]
    held = [shared.control / "held" / what for what in scans]
    for trace in held:
        trace.unlink(missing_ok=True)
    holds = [shared.cause("hold", what) for what in scans]
    before = shared.log()
    run = shared.start("-c", site, launch="turns", env=os.environ | {"TMPDIR": f"{tmp_path}"})

    def are_two() -> bool:
        return run.printed.count(":PAINT (") >= 2 and any(trace.exists() for trace in held)

    wait_for(lambda: are_two() or not shared.are_going(), "a second scan to paint")
    time.sleep(5)
    assert shared.are_going(), run.printed
    assert sum(trace.exists() for trace in held) == 1
    for hold in holds:
        hold.unlink()
    assert run.end().code == 0, run.printed
    assert all(shared.log()[what] == before[what] + 1 for what in scans)


def test_a_task_that_waits_for_a_gpu_ends_with_its_run(shared, tmp_path):
    site, what = shared.folder / "waits.config", "synthesize train-generator generator"
    site.write_text("process { withLabel: '(gpu)' { accelerator = 1 } }\n")
    before = shared.log()
    env = os.environ | {"TMPDIR": f"{tmp_path}", "CUDA_VISIBLE_DEVICES": "0,1"}
    with (tmp_path / f"lesionforge-gpu-{os.getuid()}-0_1.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = shared.start("-c", site, launch="waits", env=env)
        wait_for(lambda: ":TRAIN_GENERATOR (" in run.printed or not shared.are_going(), "a task on the GPU")
        time.sleep(3)
        assert shared.are_going(), run.printed
        run.process.terminate()
        run.end()
    time.sleep(3)
    assert shared.log()[what] == before[what]


def test_results_of_another_cohort_are_left_alone_and_the_same_cohort_may_grow(shared, undisturbed, digests):
    other = shared.sheet([("91", "patient", "train"), ("92", "patient", "test")], "other.csv")
    there, tasks = digests(undisturbed.outdir), undisturbed.tasks
    run = shared.start(sheet=other, launch="other", outdir=undisturbed.outdir).end()
    assert run.code != 0
    assert f"--outdir {undisturbed.outdir} holds the results of another cohort (4 scans, such as " in run.printed
    assert "Submitted process" not in run.printed
    assert (digests(undisturbed.outdir), undisturbed.tasks) == (there, tasks)


def test_an_output_folder_that_cannot_be_written_is_said_before_any_work(shared):
    (shared.folder / "file").touch()
    run = shared.start(launch="refused", outdir=shared.folder / "file" / "results").end()
    assert run.code != 0
    place = f"{shared.folder}/file/results"
    assert (
        f"--outdir {place} cannot be written to (FileSystemException: {place}: Not a directory); give a folder of your own."
        in run.printed
    )
    assert "Submitted process" not in run.printed
