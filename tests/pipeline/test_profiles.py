"""What the profiles, alone and together, leave of the settings of each label."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from pipeline_copy import ROOT, copy_pipeline, start_probe

LABELS = ("cpu_small", "cpu_medium", "cpu_large", "gpu")
TOGETHER = ["local", "gpu", "test", "slurm", "slurm,gpu", "gpu,slurm", "test,gpu", "slurm,gpu,apptainer"]
# How each engine is told to show a task the GPUs.
GPU_OPTIONS = {"docker": "--gpus all", "podman": "--device nvidia.com/gpu=all", "apptainer": "--nv"}
SITE = ("-c", ROOT / "docs" / "site.config")
SMALL = "process.resourceLimits = [cpus: 1, memory: 1.GB]\n"


def configuration(profiles: str, parser: str, *options: str | Path) -> str:
    """The configuration as Nextflow resolves it, a setting a line."""
    chosen = ["-profile", profiles] if profiles else []
    words = [ROOT / "bin" / "nextflow", *options, "config", "-flat", *chosen, ROOT]
    env = os.environ | {"NXF_SYNTAX_PARSER": parser}
    return subprocess.run(words, capture_output=True, text=True, check=True, env=env).stdout


def settings_of(profiles: str, parser: str) -> dict[str, set[str]]:
    """The directives that each label has, by any selector that fits it."""
    told = configuration(profiles, parser)
    found = re.findall(r"^process\.'withLabel:([^']+)'\.(\w+) = ", told, re.MULTILINE)
    return {label: {directive for pattern, directive in found if re.fullmatch(pattern, label)} for label in LABELS}


@pytest.mark.parametrize("parser", ["v1", "v2"])
@pytest.mark.parametrize("profiles", TOGETHER)
def test_every_label_keeps_its_processors_memory_and_time(profiles: str, parser: str) -> None:
    found = settings_of(profiles, parser)
    for label in LABELS:
        assert {"cpus", "memory", "time"} <= found[label], (label, found)
    assert ("accelerator" in found["gpu"]) == ("gpu" in profiles)
    assert not any("accelerator" in found[label] for label in LABELS[:3])


@pytest.mark.parametrize("parser", ["v1", "v2"])
@pytest.mark.parametrize("profiles", ["slurm,apptainer,gpu", "reproducible,slurm,apptainer,test"])
def test_a_sites_file_adds_to_the_profiles(profiles: str, parser: str) -> None:
    plain, site = (set(configuration(profiles, parser, *options).splitlines()) for options in ((), SITE))
    assert "executor.queueSize = 300" in site - plain
    assert "process.'withLabel:gpu'.queue = 'gpu'" in site - plain
    for line in ("process.executor = 'slurm'", "apptainer.enabled = true"):
        assert line in site & plain, line
    names = {line.split(" = ")[0] for line in site}
    assert names >= {line.split(" = ")[0] for line in plain}


@pytest.mark.parametrize("parser", ["v1", "v2"])
def test_the_experiments_of_the_benchmarks_change_processors_and_parameters_alone(parser: str) -> None:
    words = ("-c", ROOT / "benchmarks" / "two_at_once.config")
    told = (configuration("", parser, *options).splitlines() for options in ((), words))
    plain, two = ({line for line in lines if line.startswith("process.")} for lines in told)
    assert {line.rsplit(".", 1)[1] for line in two - plain} == {"cpus = 1"}
    assert {line.rsplit(".", 1)[1] for line in plain - two} <= {"cpus = 2"}
    assert any("gpu" in line for line in two - plain)
    schema = json.loads((ROOT / "nextflow_schema.json").read_text())
    known = {name for group in schema["$defs"].values() for name in group["properties"]}
    for path in (ROOT / "benchmarks").glob("*.json"):
        assert json.loads(path.read_text()).keys() <= known, path.name


def with_stand_ins(folder: Path, bodies: dict[str, str]) -> dict[str, str]:
    """A copy of the pipeline in `folder`, and the environment in which engines of these names do nothing but their body."""
    copy_pipeline(folder)
    programs = folder / "programs"
    programs.mkdir()
    for name, body in bodies.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    return os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}


def commands_of(profiles: str, folder: Path) -> dict[str, str]:
    """The engine's command line for a task of each label; the engines are stand-ins that do nothing."""
    env = with_stand_ins(folder, dict.fromkeys(GPU_OPTIONS, ""))
    processes = [f"process {label.upper()} {{\n    label '{label}'\n\n    script:\n    'true'\n}}\n" for label in LABELS]
    calls = "".join(f"    {label.upper()}()\n" for label in LABELS)
    workflow = "\n".join([*processes, f"workflow {{\n{calls}}}\n"])
    # Not by -c, with which the strict parser knows no profile of the pipeline.
    with (folder / "nextflow.config").open("a") as config:
        config.write(SMALL)
    # The lock of this machine's GPUs lies in TMPDIR.
    done = start_probe(folder, workflow, "-profile", profiles, env=env | {"TMPDIR": str(folder)})
    assert done.returncode == 0, done.stdout
    commands = {}
    for script in (folder / "work").glob("??/*/.command.run"):
        text = script.read_text()
        (label,) = re.findall(r"^### name: '(\w+)'$", text, re.MULTILINE)
        (commands[label.lower()],) = re.findall(r"^.*\b(?:docker run|podman run|apptainer exec) .*$", text, re.MULTILINE)
    return commands


@pytest.mark.parametrize("engine", GPU_OPTIONS)
def test_tasks_with_the_label_gpu_alone_are_shown_the_gpus(engine: str, tmp_path: Path) -> None:
    commands = commands_of(f"{engine},gpu", tmp_path)
    assert commands.keys() == set(LABELS)
    for label, command in commands.items():
        shown = {option for option in GPU_OPTIONS.values() if f" {option} " in command}
        assert shown == ({GPU_OPTIONS[engine]} if label == "gpu" else set()), command
        assert ("-gpu.sif" in command or "-gpu " in command) == (label == "gpu"), command


@pytest.mark.parametrize("profiles", ["gpu", "local"])
def test_tasks_without_a_gpu_of_their_own_see_none(profiles: str, tmp_path: Path) -> None:
    copy_pipeline(tmp_path)
    told = 'echo "told: LABEL ${CUDA_VISIBLE_DEVICES-all} ${JAX_PLATFORMS-any}"'
    body = f"    debug true\n    label 'LABEL'\n\n    script:\n    '{told}'\n".replace
    processes = [f"process {label.upper()} {{\n{body('LABEL', label)}}}\n" for label in LABELS]
    calls = "".join(f"    {label.upper()}()\n" for label in LABELS)
    with (tmp_path / "nextflow.config").open("a") as config:
        config.write(SMALL)
    env = {name: value for name, value in os.environ.items() if name not in ("CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS")}
    workflow = "\n".join([*processes, f"workflow {{\n{calls}}}\n"])
    done = start_probe(tmp_path, workflow, "-profile", profiles, env=env | {"TMPDIR": str(tmp_path)})
    found = dict(re.findall(r"^told: (\w+) (.+)$", done.stdout, re.MULTILINE))
    own = "all any" if profiles == "gpu" else "-1 cpu"
    assert found == dict.fromkeys(LABELS[:3], "-1 cpu") | {"gpu": own}, done.stdout


PROBE = """
include { startProblems } from './modules/engine'

workflow {
    startProblems(workflow).each { sentence -> println(sentence) }
}
"""


def said_of_an_engine(engine: str, body: str, profiles: str, folder: Path, **others: str) -> str:
    """What is said at the start where the engine of this name does `body`, and other programs what `others` say."""
    done = start_probe(folder, PROBE, "-profile", profiles, env=with_stand_ins(folder, {engine: body, **others}))
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize(("profile", "is_said"), [("gpu", True), ("test", False)])
@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_an_engine_that_cannot_show_the_gpu_is_said_before_any_work(
    engine: str, profile: str, is_said: bool, tmp_path: Path
) -> None:
    refusal = "echo could not select a device driver; exit 125"
    body = f'case "$*" in run*"{GPU_OPTIONS[engine]} lesionforge:"*"-gpu /bin/bash -c "*) {refusal} ;; esac'
    sentence = f"{engine} cannot show this machine's GPU to a container (could not select a device driver): set up NVIDIA's"
    assert (sentence in said_of_an_engine(engine, body, f"{engine},{profile}", tmp_path)) == is_said


@pytest.mark.parametrize("engine", GPU_OPTIONS)
def test_an_engine_that_starts_no_container_is_said_before_any_work(engine: str, tmp_path: Path) -> None:
    """Asked with the options of the tasks, once the shell has read them."""
    asked = "*--network=none*/lesionforge-*" if engine == "apptainer" else '*"HOME=$PWD"*--read-only*lesionforge:*'
    body = f'case "$*" in exec{asked}*/.try*|run*--memory{asked}*/.try*) echo user namespaces are off >&2; exit 1 ;; esac'
    said = said_of_an_engine(engine, body, engine, tmp_path)
    assert f"{engine} starts no container of " in said
    assert "(user namespaces are off): mend that, or choose another engine's profile." in said


@pytest.mark.parametrize("hangs", [":", 'trap "" TERM'], ids=["ends", "ignores"])
def test_an_engine_that_hangs_is_said_and_not_waited_for(hangs: str, tmp_path: Path) -> None:
    sooner = f'[ "$2" = 300 ] && shift 2 && exec {shutil.which("timeout")} -k 1 3 "$@"'
    said = said_of_an_engine("docker", f'case "$1" in run) {hangs}; sleep 600 ;; esac', "docker", tmp_path, timeout=sooner)
    assert "docker starts no container of lesionforge:" in said
    assert "(no answer within five minutes): mend that, or choose another engine's profile." in said


@pytest.mark.parametrize("profiles", ["apptainer", "apptainer,slurm"])
def test_apptainer_that_would_unpack_the_image_for_every_task_is_said(profiles: str, tmp_path: Path) -> None:
    # On SLURM's nodes a container may start where it does not here.
    code = int("slurm" in profiles)
    body = f'case "$1" in exec) echo "INFO:    Converting SIF file to temporary sandbox..." >&2; exit {code} ;; esac'
    said = said_of_an_engine("apptainer", body, profiles, tmp_path)
    assert "Apptainer cannot mount images on this machine and unpacks all of " in said
    assert "starts no container" not in said


OPTIONS = """
include { forTask } from './modules/preflight'

workflow {
    println("told: ${forTask(workflow.session.config.process.clusterOptions, [accelerator: 1])}")
}
"""


def test_sbatch_is_asked_for_the_gpu_beside_other_resources(tmp_path: Path) -> None:
    copy_pipeline(tmp_path)
    options = ("--slurm_account", "lab", "--slurm_options", "qos=long gres=lscratch:200")
    done = start_probe(tmp_path, OPTIONS, "-profile", "slurm,gpu", *options)
    assert "told: --account=lab --gres=gpu:1,lscratch:200 --qos=long" in done.stdout


# What a site's file may set clusterOptions to, for whom, with the profile gpu or without, and whether the account lab is kept.
SITES = [
    ("", "'--account=lab --gres=gpu:1'", True, "taken"),
    ("", "'--account=lab'", True, "refused"),
    ("'withLabel:gpu'", '{ "--account=lab --gres=gpu:${task.accelerator.request}" }', True, "taken"),
    ("'withLabel:(gpu)'", "'-A lab --gpus=1'", True, "taken"),
    ("", "'-Alab -G 1'", True, "taken"),
    ("", "'--account lab --gres ssd:1,gpu:a100:1'", True, "taken"),
    ("", "'--account=lab --gres=gpumem:1'", True, "refused"),
    ("", '\'--account="lab" --gres="gpu:1"\'', True, "taken"),
    ("'withName:TRAIN'", "'--account=lab'", True, "refused"),
    ("'withName:.*:TRAIN'", "'--account=lab'", True, "refused"),
    ("'withLabel:one_scan'", "'--account=lab'", True, "refused"),
    ("'withLabel:!gpu'", "'--account=lab'", True, "taken"),
    ("'withName:!TRAIN'", "'--account=lab'", True, "refused"),
    ("'withLabel:cpu_small'", "{ '--account=lab --qos=short' }", True, "taken"),
    ("'withLabel:cpu_small'", "'--qos=short'", False, "refused"),
    ("", "'--account=lab2'", False, "refused"),
    ("", "{ \"--account=${task.process.tokenize(':').last()}\" }", False, "taken"),
    ("'withLabel:gpu'", "{ task.process.contains('TRAIN') ? '--qos=long' : '' }", True, "taken"),
]


# --slurm_options that ask for a GPU for every job, and those that do not.
FOR_EVERY_JOB = ("gpus=1", "gres=ssd:1,gpu:2")
ONLY_CALLED_SO = ("qos=gpus reservation=gpus", "gres=ssd:1")
# Options, and the variables of sbatch that count more than they.
VARIABLES = {
    "--account=lab --exclusive -p long": "[[ACCOUNT, lab], [PARTITION, long]]",
    "--account lab --gpus-per-node=1": "[[ACCOUNT, lab], [GPUS_PER_NODE, 1]]",
    "-Alab -q short -G 2": "[[ACCOUNT, lab], [QOS, short], [GPUS, 2]]",
    "--exclusive": "[]",
}


# The same, beside --slurm_options.
BESIDE = {"--account=lab -q long --exclusive": True, "--account=lab --qos long": False, "--account=lab --exclusive": False}


def test_a_sites_own_options_are_taken_where_they_ask_for_all_or_cannot_be_known(tmp_path: Path) -> None:
    copy_pipeline(tmp_path)
    lines = []
    for number, (name, options, gpu, _) in enumerate(SITES):
        settings = f"[{name}: [clusterOptions: {options}]]" if name else f"[clusterOptions: {options}]"
        verdict = f"optionProblems(given, {settings}, {str(gpu).lower()}) ? 'refused' : 'taken'"
        lines.append(f"    println('row {number}: ' + ({verdict}))")
    # The account for all tasks, and for those with a GPU both.
    settings = "[clusterOptions: '--account=lab', 'withLabel:gpu': [clusterOptions: '--account=lab --gres=gpu:1']]"
    lines.append(f"    println('both: ' + optionProblems(given, {settings}, true))")
    lines += [f"    println('{text}: ' + variablesOf('{text}'))" for text in VARIABLES]
    beside = "given + [slurm_options: 'qos=long exclusive gres=ssd:1']"
    lines += [f"    println('beside {text}: ' + optionProblems({beside}, [clusterOptions: '{text}'], false))" for text in BESIDE]
    lines += [
        f"    println('{text}: ' + (combinationProblems([slurm_options: '{text}'], ['slurm', 'gpu']) ? 'refused' : 'taken'))"
        for text in (*FOR_EVERY_JOB, *ONLY_CALLED_SO)
    ]
    given = "    given = [slurm_account: 'lab', slurm_gpu: 'gres=gpu:1']"
    included = {"preflight": "optionProblems; variablesOf", "parameters": "combinationProblems"}
    includes = [f"include {{ {names} }} from './modules/{module}'" for module, names in included.items()]
    # The strict parser knows no `task` in a script; the closures of a site lie in its configuration.
    env = os.environ | {"NXF_SYNTAX_PARSER": "v1"}
    done = start_probe(tmp_path, "\n".join([*includes, "workflow {", given, *lines, "}"]), env=env)
    found = dict(re.findall(r"^row (\d+): (\w+)$", done.stdout, re.MULTILINE))
    assert found == {str(number): verdict for number, (*_, verdict) in enumerate(SITES)}, done.stdout
    assert "both: []" in done.stdout
    for text, is_taken in BESIDE.items():
        assert (f"beside {text}: []" in done.stdout) == is_taken, done.stdout
    for text, variables in VARIABLES.items():
        assert f"{text}: {variables}" in done.stdout
    for options in (*FOR_EVERY_JOB, *ONLY_CALLED_SO):
        assert f"{options}: {'refused' if options in FOR_EVERY_JOB else 'taken'}" in done.stdout


TIMES = """
include { timesOf } from './modules/preflight'

workflow {
    named = ['withLabel:cpu_small': [time: '1h'], 'withName:TO_TEMPLATE': [time: '10h'], 'withName:TRAIN|.*:PAIR': [time: '3h']]
    ['cpu_small', 'cpu_medium', 'cpu_large', 'gpu'].each { label -> println("told: ${label} ${timesOf(label, named)}") }
}
"""


def test_a_time_of_one_process_counts_for_the_label_that_it_has(tmp_path: Path) -> None:
    copy_pipeline(tmp_path)
    done = start_probe(tmp_path, TIMES)
    found = dict(re.findall(r"^told: (\w+) (.+)$", done.stdout, re.MULTILINE))
    told = {"cpu_small": "[1h, 3h]", "cpu_medium": "[null]", "cpu_large": "[null, 10h]", "gpu": "[null, 3h]"}
    assert found == told, done.stdout


def test_every_process_is_known_with_its_labels() -> None:
    known = re.findall(
        r"^        '([A-Z_]+:[A-Z_]+) ([a-z_ ]+)',$", (ROOT / "modules" / "preflight.nf").read_text(), re.MULTILINE
    )
    texts = [path.read_text() for path in sorted((ROOT / "modules").glob("*/*.nf"))]
    bodies = dict(re.findall(r"^process (\w+) \{$(.+?)^    input:$", "".join(texts), re.MULTILINE | re.DOTALL))
    labels = {name: " ".join(re.findall(r"^    label '(\w+)'$", body, re.MULTILINE)) for name, body in bodies.items()}
    there = {}
    for text in texts:
        for workflow in re.findall(r"^workflow (\w+) \{$", text, re.MULTILINE):
            included = re.findall(r"^include \{ (QUALITY)(?: as (\w+))? \}", text, re.MULTILINE)
            own = [(name, "") for name in re.findall(r"^process (\w+) \{$", text, re.MULTILINE)]
            there |= {f"{workflow}:{alias or name}": labels[name] for name, alias in (*own, *included)}
    assert len(there) > 20
    assert dict(known) == there


def test_help_names_every_parameter_and_starts_nothing(tmp_path: Path) -> None:
    words = [ROOT / "bin" / "nextflow", "run", ROOT / "main.nf", "--help"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    schema = json.loads((ROOT / "nextflow_schema.json").read_text())
    for name in (name for group in schema["$defs"].values() for name in group["properties"]):
        assert f"  --{name} " in done.stdout, name
    assert not (tmp_path / "work").exists() or not list((tmp_path / "work").iterdir())
