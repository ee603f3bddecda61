"""Stands in for `lesionforge` in the tests of the cluster: every command but `cohort` writes a digest of all it was given.

So the pipeline runs its true scripts in milliseconds each, and what comes out changes with each byte and option that went in.
An option that the true command does not have, or one that it must have and does not get, fails (options.json beside this file).
Tables of the cohort also name the files that they are of.
The folder CONTROL says what goes wrong, and keeps a log of what was done. Usage: stand_in.py CONTROL REAL ARGUMENT ...
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

CONTROL, REAL = Path(sys.argv[1]), sys.argv[2]
OPTIONS = sys.argv[3:]
# What a command leaves in its folder --out; {id}: the scan, from --id or the name of its folder, {run}: arm, fold and seed.
WRITES = {
    "prepare strip": ["{id}/{id}_desc-strip.json"],
    "prepare align": ["{id}/{id}_desc-align.json"],
    "prepare tissues": ["{id}/{id}_desc-prepare.json"],
    "prepare judge": [],
    "register": ["{id}/{id}_desc-register.json"],
    "register pair": ["{pair}/{pair}_desc-pair.json"],
    "synthesize levels": ["{id}/{id}_desc-levels.json"],
    "synthesize train-generator": ["model.json"],
    "synthesize transplant": ["{id}/{id}_desc-draw.json"],
    "synthesize paint": ["{id}/{id}_desc-provenance.json"],
    "assemble": ["{arm}.tsv"],
    "assemble classical": ["{id}/{id}_desc-draw.json"],
    "assemble mix": ["{id}/{id}_desc-draw.json"],
    "train": ["model.json"],
    "segment": ["{id}/{id}_desc-segment.json"],
    "segment tabulate": ["scans.tsv", "scans.json"],
    "evaluate scan": ["{run}_{id}.json"],
    "evaluate compare": ["arms.tsv", "summary.tsv", "comparisons.tsv", "sizes.tsv"],
    "report": ["index.html", "quality.tsv"],
}
# The commands that write these tables.
TABLES = ("segment tabulate", "evaluate compare", "report")


def option(*names: str) -> str:
    """The value of the first of these options that was given, or an empty text."""
    return next((OPTIONS[OPTIONS.index(name) + 1] for name in names if name in OPTIONS), "")


def given() -> list[str]:
    """Every file in the task's folder, links followed, but for hidden ones."""
    folders = sorted(os.walk(".", followlinks=True))
    return [f"{folder}/{name}" for folder, _, files in folders for name in sorted(files) if not name.startswith(".")]


def digest() -> str:
    """SHA-256 of the options, but for the number of threads and the device, and of every file in the task's folder."""
    seen = hashlib.sha256()
    words = list(OPTIONS)
    for name in ("--threads", "--device"):
        if name in words:
            del words[words.index(name) : words.index(name) + 2]
    seen.update("\0".join(words).encode())
    for path in given():
        seen.update(f"\0{path}\0".encode())
        seen.update(Path(path).read_bytes())
    return seen.hexdigest()


def refuse_strangers(command: str) -> None:
    """End with an error where the true command would not take the options."""
    of_all, own = (json.loads(Path(__file__).with_name("options.json").read_text())[name] for name in ("", command))
    given = {word for word in OPTIONS if word.startswith("--")}
    if fault := sorted(given - {*of_all["known"], *own["known"]}) or sorted(set(own["required"]) - given):
        sys.exit(f"Error: {command} does not take, or lacks, {' '.join(fault)}")


def wanted(fault: str, what: str) -> bool:
    """Whether the test asks for a fault: a file of this name and place, such as hold/prepare strip sub-01."""
    return (CONTROL / fault / what).exists()


def hold(what: str) -> None:
    """Wait for as long as the test asks for it, and say so."""
    if wanted("hold", what):
        (CONTROL / "held").mkdir(exist_ok=True)
        (CONTROL / "held" / what).write_text(os.environ.get("SLURMD_NODENAME", ""))
        while wanted("hold", what):
            time.sleep(0.1)


def main() -> None:
    """Do as asked."""
    if "--help" in OPTIONS:
        return
    words = [word for word in OPTIONS[OPTIONS.index("--threads") + 2 :] if word != "--reproducible"]
    if words[0] == "cohort":
        hold("cohort")
        os.execv(REAL, [REAL, *OPTIONS])
    command = " ".join(words[:2]) if " ".join(words[:2]) in WRITES else words[0]
    refuse_strangers(command)
    scan = (
        option("--id") or Path(option("--figures", "--prepared", "--transplant", "--canvas", "--aligned")).name.split("_desc-")[0]
    )
    run = option("--arm") + "".join(f"_{name}-{option(f'--{name}')}" for name in ("fold", "seed") if option(f"--{name}"))
    names = {
        "id": scan,
        "arm": option("--arm"),
        "run": run,
        "pair": f"{Path(option('--donor')).name}_to_{Path(option('--canvas')).name}",
    }
    if command == "segment":
        scan = f"{scan} {option('--out')}"
    what = " ".join([command, scan or option("--arm", "--out")])
    if wanted("fail", what):
        sys.stderr.buffer.write((CONTROL / "fail" / what).read_bytes() or b"Error: this scan is broken\n")
        sys.exit(1)
    if wanted("full", what):
        sys.exit(74)
    if wanted("hog", what):
        memory = bytearray(500_000_000)
        memory[::4096] = b"1" * len(range(0, len(memory), 4096))
        time.sleep(float((CONTROL / "hog" / what).read_text()))
    hold(what)
    content = f"{digest()}\n"
    if command == "assemble":
        places = ("prepare", "synthesize", "assemble")
        folders = sorted(str(path) for place in places for path in Path(place).glob("*") if path.is_dir())
        content = "arm\tfolder\n" + "".join(f"{names['arm']}\t../{folder}\n" for folder in folders) + f"{names['arm']}\t{content}"
    if command in TABLES:
        content += "".join(f"{path}\n" for path in given())
    for name in WRITES[command]:
        path = Path(option("--out")) / name.format(**names)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    with (CONTROL / "log").open("a") as log:
        log.write(f"{what}\n")


main()
