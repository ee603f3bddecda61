"""The section "The experiment on open_ms" of docs/results.md, from what `make experiment-open-ms` left behind.

Reads RESULTS/evaluate/*.tsv, RESULTS/pipeline_info/trace* and the parameters of the run (--params, else
RESULTS/pipeline_info/params*.json, else experiment_open_ms.json beside this file; none are told if there is none). Writes
OUT/results.md between the two markers, at its end when it has none yet, and copies the charts of RESULTS/evaluate to
OUT/figures/experiment-*.png. All else in OUT stays as it is.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import click
import pandas as pd

from lesionforge.errors import InputError
from lesionforge.evaluate.charts import CAPTIONS, CHART_TITLES, TITLES, main_comparisons
from lesionforge.evaluate.comparisons import SUBJECTS
from lesionforge.images import read_json, read_tsv
from lesionforge.images.files import whole_file

BEGIN, END = "<!-- experiment: begin -->", "<!-- experiment: end -->"
COMMAND = "make experiment-open-ms DATA=../shared/data/open_ms BASELINE="
WEIGHTS = "../shared/data/nicmslesions"
PARAMETERS = Path(__file__).with_name("experiment_open_ms.json")
CORES, MOST_HOURS = 2, 2.5
DIRECTIONS = 2
WHOLE = "n/a"
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Aim:
    """One aim: what was to be reached, what was, and whether it is met; None when it was not measured."""

    text: str
    reached: str
    met: bool | None


def number(text: str) -> float:
    """A cell as a number; NaN for n/a."""
    return float("nan") if text in ("", "n/a") else float(text)


def show(value: float, sign: bool = False, digits: int = 3) -> str:
    """A number for a reader, or n/a for NaN."""
    return "n/a" if pd.isna(value) else f"{value:{'+' if sign else ''}.{digits}f}"


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    header = list(header)
    return "".join("| " + " | ".join(line) + " |\n" for line in (header, ["---"] * len(header), *rows))


def mean_and_range(cells: pd.Series, digits: int = 3) -> str:
    """The mean over the runs, and least and most where there are several; runs where it is undefined are said."""
    values = cells.map(number)
    known = values.dropna()
    if known.empty:
        return "n/a"
    text = show(known.mean(), digits=digits)
    if len(known) > 1:
        text += f" ({show(known.min(), digits=digits)} to {show(known.max(), digits=digits)})"
    return text if len(known) == len(values) else f"{text}, undefined in {len(values) - len(known)} of {len(values)}"


def arms_tables(arms: pd.DataFrame) -> str:
    """One table per test subject: each arm with mean and range over its runs."""
    parts = []
    header = ["arm", "runs", "Dice", "lesion sensitivity", "lesion false discovery", "predicted, ml", "lesions found"]
    for subject, scans in arms.groupby("subject"):
        volumes, lesions = (sorted(set(scans[name].map(number))) for name in ("volume_reference_ml", "lesions_reference"))
        size = ", ".join(f"{volume:.1f}" for volume in volumes), ", ".join(f"{count:.0f}" for count in lesions)
        rows = []
        for arm, runs in scans.groupby("arm", sort=False):
            measures = [mean_and_range(runs[name]) for name in ("dice", "lesion_sensitivity", "lesion_false_discovery")]
            counts = [mean_and_range(runs["volume_predicted_ml"], 2), mean_and_range(runs["lesions_found"], 1)]
            rows.append([str(arm), str(len(runs)), *measures, *counts])
        parts.append(f"Tested on sub-{subject} (reference {size[0]} ml, {size[1]} lesions):\n\n{markdown(header, rows)}")
    return "\n".join(parts)


def sizes_table(sizes: pd.DataFrame) -> str:
    """Each arm's share of the reference lesions of each size that it finds, and how many those are."""
    header, rows = ["arm"], []
    for arm, found in sizes.groupby("arm", sort=False):
        bounds = zip(found["from_mm3"].map(number), found["below_mm3"].map(number), strict=True)
        header = ["arm", *(f"{low:g} mm³ and more" if pd.isna(high) else f"{low:g} to {high:g} mm³" for low, high in bounds)]
        cells = zip(found["recall"].map(number), found["found"], found["lesions"], strict=True)
        rows.append([str(arm), *(f"{show(recall, digits=2)} ({count} of {lesions})" for recall, count, lesions in cells)])
    return markdown(header, rows)


def difference_table(comparisons: pd.DataFrame) -> str:
    """The paired differences of the main comparisons: over all subjects with both intervals, and in each subject."""
    subjects = sorted(set(comparisons["subject"]) - {WHOLE})
    header = ["arm minus arm", "measure", "difference", f"95 % over {SUBJECTS}", "95 % within", "drawn within", *subjects]
    rows = []
    for (arm, against, measure), found in main_comparisons(comparisons).groupby(["arm", "against", "measure"], sort=False):
        whole, each = found[found["subject"] == WHOLE], found[found["subject"] != WHOLE].set_index("subject")
        by_subjects = whole["resampled"] == SUBJECTS
        outer, inner = whole[by_subjects].iloc[0], whole[~by_subjects].iloc[0]
        digits = 1 if measure == "avd_percent" else 3
        cells = [interval(outer, digits), interval(inner, digits), inner["resampled"]]
        known = [number(each["difference"].get(subject, "n/a")) for subject in subjects]
        mean = show(number(outer["difference"]), True, digits)
        if outer["undefined"] != "0":
            mean += f" ({outer['undefined']} of {int(outer['undefined']) + int(outer['pairs'])} pairs undefined)"
        rows.append([f"{arm} − {against}", TITLES[measure], mean, *cells, *(show(value, True, digits) for value in known)])
    return markdown(header, rows)


def interval(row: pd.Series, digits: int) -> str:
    """An interval, or why there is none."""
    low, high = number(row["low"]), number(row["high"])
    return row["reason"] if pd.isna(low) else f"{show(low, True, digits)} to {show(high, True, digits)}"


def by_subject(table: pd.DataFrame, column: str, **wanted: str) -> dict[str, float]:
    """{subject: number}, `n/a` for all of them, of the rows that have these cells, of the first of each subject."""
    for name, value in wanted.items():
        table = table[table[name] == value]
    first = table.drop_duplicates("subject")
    return {subject: number(cell) for subject, cell in zip(first["subject"], first[column], strict=True)}


def in_each(values: dict[str, float], sign: bool = False) -> str:
    """The number of each subject, in words."""
    return (
        ", ".join(f"sub-{subject} {show(value, sign)}" for subject, value in values.items() if subject != WHOLE) or "not measured"
    )


def judge(values: Iterable[float], passes: Callable[[float], bool], wanted: int = DIRECTIONS) -> bool | None:
    """Whether all values pass; None when there are fewer than wanted, or one is undefined."""
    values = list(values)
    return None if len(values) < wanted or any(pd.isna(value) for value in values) else all(map(passes, values))


def aims_of(summary: pd.DataFrame, comparisons: pd.DataFrame) -> list[Aim]:
    """The aims of the experiment, judged by the numbers of the tables."""
    gain = by_subject(comparisons, "difference", arm="augmented", against="real", measure="dice")
    mean = gain.pop(WHOLE, float("nan"))
    # A mean over one direction is none of both.
    mean_met = judge([mean], lambda value: value >= 0.15, 1) if len(gain) >= DIRECTIONS else None
    each_met = judge(gain.values(), lambda value: value >= 0.10)
    aims = [
        Aim("augmented minus real, Dice, mean: +0.15 or more", in_words(mean, True), mean_met),
        Aim("the same in each direction: +0.10 or more", in_each(gain, True), each_met),
    ]
    found = {arm: by_subject(summary, "lesion_sensitivity", arm=arm) for arm in ("real", "augmented")}
    real, augmented = (found[arm].get(WHOLE, float("nan")) for arm in found)
    whole = all(len(values) > DIRECTIONS for values in found.values())
    doubled = judge([augmented], lambda value: value > 0 and value >= 2 * real, 1) if whole and not pd.isna(real) else None
    ratio = f" (x {augmented / real:.1f})" if real else ""
    told = "not measured" if doubled is None else f"{show(real)} to {show(augmented)}{ratio}"
    aims.append(Aim("lesion sensitivity, mean: at least doubled from real to augmented", told, doubled))
    false = by_subject(summary, "lesion_false_discovery", arm="augmented")
    false.pop(WHOLE, None)
    met = judge(false.values(), lambda value: value < 0.35)
    aims.append(Aim("lesion false discovery of augmented in each direction: below 0.35", in_each(false), met))
    for against, name in (("mix", "mix"), ("classical", "classical"), ("baseline", "baseline (unadapted)")):
        above = by_subject(comparisons, "difference", arm="augmented", against=against, measure="dice")
        above.pop(WHOLE, None)
        met = judge(above.values(), lambda value: value > 0)
        aims.append(Aim(f"augmented minus {name}, Dice, on each test subject: above 0", in_each(above, True), met))
    return aims


def in_words(value: float, sign: bool = False) -> str:
    """A number, or that it was not measured."""
    return "not measured" if pd.isna(value) else show(value, sign)


def aims_table(aims: list[Aim]) -> str:
    """The aims, what was reached, and whether that is enough."""
    verdicts = {True: "met", False: "**missed**", None: "not measured"}
    return markdown(["aim", "reached", ""], [[aim.text, aim.reached, verdicts[aim.met]] for aim in aims])


def seconds(text: str) -> float:
    """A time as Nextflow writes it, such as `1h 2m 3s` or `850ms`, in seconds; 0 for `-`."""
    return sum(float(value) * UNITS[unit] for value, unit in re.findall(r"([\d.]+)\s*(ms|s|m|h|d)\b", text))


def tasks_of(results: Path) -> pd.DataFrame:
    """The tasks that the results are made of: process, seconds, cores, and seconds of processor time.

    The last start that made the report lists them all, those it took over too.
    """
    for trace in sorted((results / "pipeline_info").glob("trace*"), reverse=True):
        tasks = read_tsv(trace)
        tasks = tasks[tasks["status"].isin(["COMPLETED", "CACHED"])]
        if tasks["process"].str.endswith(":REPORT").any():
            break
    else:
        return pd.DataFrame(columns=["process", "seconds", "cores", "processor"])
    took = tasks["realtime"].map(seconds)
    cores = pd.to_numeric(tasks["cpus"], errors="coerce").fillna(1)
    # Of tasks that last no second Nextflow has no measure.
    share = pd.to_numeric(tasks["%cpu"].str.rstrip("%"), errors="coerce").fillna(100 * cores) / 100
    return pd.DataFrame(
        {"process": tasks["process"].str.split(":").str[-1], "seconds": took, "cores": cores, "processor": took * share}
    )


def cost(results: Path) -> str:
    """Seconds of each process, and of all."""
    tasks = tasks_of(results)
    if tasks.empty:
        return "No start of the run left a whole trace, so its cost is not known.\n"
    rows = []
    for process, times in tasks.groupby("process")["seconds"]:
        rows.append([str(process), str(len(times)), f"{times.sum():.0f}", f"{times.mean():.0f}", f"{times.max():.0f}"])
    rows.sort(key=lambda row: -float(row[2]))
    rows.append(["all", str(len(tasks)), f"{tasks['seconds'].sum():.0f}", "", f"{tasks['seconds'].max():.0f}"])
    hours = (tasks["seconds"] * tasks["cores"]).sum() / 3600
    sentence = (
        f"Tasks took {tasks['seconds'].sum() / 3600:.2f} hours one after the other, {hours:.2f} hours of the cores that they "
        f"were given, so {hours / CORES:.2f} hours at least on {CORES} cores (aim: {MOST_HOURS} hours). Of these they worked "
        f"{tasks['processor'].sum() / 3600:.2f} (processor time) and waited, for files or other work on the machine, the rest."
    )
    return f"{sentence}\n\n{markdown(['process', 'tasks', 'seconds', 'mean', 'longest'], rows)}"


def parameters(results: Path, given: Path | None) -> str:
    """The parameters of the run, in one line; empty when they are not known."""
    found = [PARAMETERS, *sorted((results / "pipeline_info").glob("params*.json"))]
    paths = [given] if given else [path for path in found if path.is_file()]
    if not paths:
        return ""
    content = read_json(paths[-1])
    told = ", ".join(
        f"`{name}` {value}" for name, value in sorted(content.items()) if value is not None and "/" not in str(value)
    )
    return f"Parameters: {told}.\n\n"


def section(results: Path, given: Path | None) -> str:
    """The section, from its heading on."""
    names = ("arms", "summary", "comparisons", "sizes")
    arms, summary, comparisons, sizes = (read_tsv(results / "evaluate" / f"{name}.tsv") for name in names)
    aims = aims_of(summary, comparisons)
    counts = [sum(aim.met is met for aim in aims) for met in (True, False, None)]
    charts = [name for name in CAPTIONS if (results / "evaluate" / name).is_file()]
    pictures = "\n".join(f"![{CHART_TITLES[name]}](figures/experiment-{name})\n\n{CAPTIONS[name]}\n" for name in charts)
    return f"""## The experiment on open_ms

    {COMMAND}{WEIGHTS if (arms["arm"] == "baseline").any() else ""}

makes the runs and writes this section by `benchmarks/experiment.py`. Each direction trains on one annotated patient and tests on
the other. Figures are means over the runs (seeds) of an arm, least and most in parentheses; lesions are 26-connected, of any
size, and found by any overlap.

{parameters(results, given)}Of {len(aims)} aims {counts[0]} are met, {counts[1]} missed, {counts[2]} not measured:

{aims_table(aims)}
{arms_tables(arms)}
Reference lesions found, by volume, of both patients and all runs together (each lesion once per run):

{sizes_table(sizes)}
Paired differences, on the same test scan and seed, each subject with the same weight. Intervals are 95 % percentile bootstrap
intervals: over {SUBJECTS}, and within them by drawing lesions or runs again. With two subjects the first spans no more than the
two values, and the second says how sure the difference is for these two, not for other patients. `evaluate/comparisons.tsv` has
the rest.

{difference_table(comparisons)}
{cost(results)}
{pictures}"""


def between_markers(page: str, text: str) -> str:
    """The page with `text` between its markers, at its end when it has none; raises InputError when it has half of them."""
    counts = page.count(BEGIN), page.count(END)
    if counts == (0, 0):
        return f"{page.rstrip()}\n\n{BEGIN}\n{text.rstrip()}\n{END}\n"
    if counts != (1, 1) or page.index(BEGIN) > page.index(END):
        raise InputError(f"results.md: needs {BEGIN} once and {END} once after it; put both where the section belongs")
    return f"{page[: page.index(BEGIN)]}{BEGIN}\n{text.rstrip()}\n{page[page.index(END) :]}"


@click.command()
@click.argument("results", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--out", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True, help="Folder of results.md.")
@click.option("--params", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="JSON of the run's parameters.")
def main(results: Path, out: Path, params: Path | None) -> None:
    """Write the section about the experiment in RESULTS into OUT/results.md, and its charts into OUT/figures."""
    page = out / "results.md"
    try:
        text = between_markers(page.read_text(encoding="utf-8"), section(results, params))
        (out / "figures").mkdir(exist_ok=True)
        for name in CAPTIONS:
            if (results / "evaluate" / name).is_file():
                with whole_file(out / "figures" / f"experiment-{name}") as temporary:
                    shutil.copyfile(results / "evaluate" / name, temporary)
        with whole_file(page) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except (InputError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{page}: {text.count('| met |')} aims met, {text.count('| **missed** |')} missed")


if __name__ == "__main__":
    main()
