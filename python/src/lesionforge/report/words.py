"""Sentences of the page, each made from the tables and only where it is true."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lesionforge.evaluate.charts import FEW_SUBJECTS
from lesionforge.evaluate.comparisons import SUBJECTS
from lesionforge.report.gather import GIVEN_MODEL, Results, expected_scans, tested_by
from lesionforge.report.quality import STATUSES, ScanQuality
from lesionforge.report.tables import as_number, show

if TYPE_CHECKING:
    import pandas as pd

STAGES = {
    "experiment": ("cohort", "prepare", "register", "synthesize", "assemble", "train", "segment", "evaluate"),
    "augment": ("cohort", "prepare", "register", "synthesize", "assemble"),
    "segment": ("cohort", "prepare", "segment"),
}
LEADS = {
    "experiment": "Lesions of patients painted onto other brains, a segmenter trained with and without them, and the gain.",
    "augment": "Lesions of patients painted onto other brains: the data set that a segmenter can be trained on.",
    "segment": "Lesions found by a given model.",
}
UNDEFINED = (
    "A dash means undefined, never zero: sensitivity needs a lesion in the reference, false discovery one in the prediction, "
    "Dice one in either. Undefined values are left out of means, and the number of scans that remain is given."
)

HOW_TO_JUDGE = (
    "A figure on red lies beyond its fail limit, one on amber beyond its warn limit; pointing at a figure shows its limits and, "
    "beyond them, what to check. A scan that fails went no further: look at its brain mask and tissues below before you change "
    "a limit. docs/quality.md says what each figure means and where its limits come from."
)


def plural(count: int, thing: str) -> str:
    """`1 test scan`, `2 test scans`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


PAIRED = (
    "Differences are paired: first arm minus second on the same test scan and seed, each subject with the same weight. In "
    f"parentheses the 95 % bootstrap interval, of subjects where there are {FEW_SUBJECTS} or more, else of lesions (sensitivity, "
    "false discovery) or of subjects and runs (Dice, volume error): then it says how sure the difference is for these scans only."
)


def headline(summary: pd.DataFrame, comparisons: pd.DataFrame | None) -> str:
    """What the evaluation says, in one or two sentences, from summary.tsv and comparisons.tsv as text."""
    by_arm = {row["arm"]: row for _, row in summary[summary["subject"] == "n/a"].iterrows()}
    difference = {} if comparisons is None else augmented_against_real(comparisons)
    if not math.isnan(gain := difference.get("dice", math.nan)):
        subjects = int(difference["subjects"])
        verb = "left Dice unchanged" if abs(gain) < 0.0005 else "raised mean Dice" if gain > 0 else "lowered mean Dice"
        text = (
            f"Adding the synthetic scans {verb} ({show(gain, sign=True)}) over {plural(subjects, 'test subject')} measured in "
            "both arms"
        )
        measures = {"lesion_sensitivity": "lesion sensitivity", "lesion_false_discovery": "false discovery (lower is better)"}
        changes = {words: difference.get(name, math.nan) for name, words in measures.items()}
        told = [f"{words} {show(change, sign=True)}" for words, change in changes.items() if not math.isnan(change)]
        text += f"; {', '.join(told)}." if told else "."
        if subjects < FEW_SUBJECTS:
            text += " So few test subjects show that the chain works; they cannot say which arm is better in general."
        return text
    defined = [row for row in by_arm.values() if not math.isnan(as_number(row["dice"]))]
    if not defined:
        return "No test scan has a lesion in its reference or its prediction, so that overlap is undefined throughout."
    return "; ".join(f"Arm {row['arm']}: mean Dice {show(float(as_number(row['dice'])))}" for row in defined) + "."


def augmented_against_real(comparisons: pd.DataFrame) -> dict[str, float]:
    """The mean differences augmented minus real by measure, and over how many `subjects` that of Dice is; empty without them."""
    rows = comparisons[(comparisons["arm"] == "augmented") & (comparisons["against"] == "real")]
    rows = rows[(rows["subject"] == "n/a") & (rows["resampled"] == SUBJECTS)].set_index("measure")
    if "dice" not in rows.index:
        return {}
    return {str(name): float(as_number(value)) for name, value in rows["difference"].items()} | {
        "subjects": int(rows["subjects"]["dice"])
    }


def canvases(results: Results) -> str:
    """Says when lesion-filled patients served as canvases; empty when none did."""
    if results.pairs is None or results.cohort is None:
        return ""
    roles = dict(zip(results.cohort["id"], results.cohort["role"], strict=True))
    painted = results.pairs[results.pairs["synthetic_id"].str.startswith("sub-syn")]
    patients = sorted({canvas for canvas in painted["canvas"] if roles.get(canvas) == "patient"})
    if not patients:
        return ""
    why = "The cohort has no healthy scans: " if "healthy" not in roles.values() else ""
    sentence = f"{why}lesion-filled patients ({', '.join(patients)}) served as canvases."
    warning = " Their own lesions were painted over with normal-appearing white matter; remnants may stay unlabelled."
    return sentence[0].upper() + sentence[1:] + warning


def stops(results: Results, mode: str) -> list[str]:
    """One sentence for each stage that left nothing, and for each scan that a stage left out."""
    sentences = []
    left = {
        "cohort": results.cohort,
        "prepare": results.prepared,
        "register": results.registered,
        "synthesize": results.synthetic,
        "assemble": results.indices,
        "train": [name for name in results.models if not name.startswith("generator")],
        "segment": results.segmented,
        "evaluate": results.arms,
    }
    silent = [stage for stage in STAGES[mode] if left[stage] is None or not len(left[stage])]  # type: ignore[arg-type]
    if silent:
        sentences.append(f"Nothing from {', '.join(silent)}: not run, failed for every scan, or not given to this report.")
    if results.cohort is not None:
        patients = set(results.cohort.loc[results.cohort["role"] == "patient", "id"])
        scans = list(expected_scans(results.cohort, mode)["id"])
        stages: list[tuple[str, Any, list[str]]] = [("prepare", results.prepared, scans)]
        if mode != "segment":
            wanted_in_template = scans_in_template(results)
            stages.append(("register", results.registered, [scan for scan in scans if scan in wanted_in_template]))
            planned = [] if results.pairs is None else list(results.pairs["synthetic_id"])
            stages.append(("synthesize", results.synthetic, [name for name in planned if name.startswith("sub-syn")]))
        for run, found in results.segmented.items():
            tested = patients if mode == "segment" else patients & tested_by(results, run)
            stages.append((f"segment ({run})", found, [scan for scan in scans if scan in tested and scan in results.prepared]))
        for stage, found, wanted in stages:
            missing = [scan for scan in wanted if scan not in found]
            if found and missing:
                sentences.append(
                    f"Stage {stage} left no complete folder for {plural(len(missing), 'scan')}: {', '.join(missing)}."
                )
    return sentences + results.unreadable


def scans_in_template(results: Results) -> set[str]:
    """The scans that are registered to the template: those of all pairs, or when donors are registered to their canvas
    directly, only the canvases of a library's masks, which then are all that the stage left.
    """
    if results.pairs is None:
        return set()
    pairs = results.pairs[results.pairs["kind"] != "cla"] if "kind" in results.pairs else results.pairs
    masks = pairs[pairs["donor"].str.startswith("lib-")]
    donors = set(pairs["donor"]) - set(masks["donor"])
    if len(masks) and not donors & set(results.registered):
        return set(masks["canvas"])
    return donors | set(pairs["canvas"])


def quality(scans: list[ScanQuality]) -> str:
    """How many scans passed, warned, failed and are missing."""
    counts = {status: sum(scan.status == status for scan in scans) for status in reversed(STATUSES)}
    told = [f"{count} {status}" for status, count in counts.items() if count]
    return f"Quality of {plural(len(scans), 'scan')}: {', '.join(told)}."


def what_was_run(results: Results, mode: str, cards: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """(name, value) of the run's main facts, as far as they are known."""
    facts = [("mode", mode)]
    if results.cohort is not None:
        roles = results.cohort["role"].value_counts()
        facts.append(("cohort", ", ".join(plural(count, f"{role} scan") for role, count in roles.items())))
    if results.synthetic:
        facts.append(("synthetic scans", str(len(results.synthetic))))
    if results.segmented:
        facts.append(("arms", ", ".join(arm for arm in results.segmented if arm != GIVEN_MODEL) or GIVEN_MODEL))
    seeds = sorted({str(card["seed"]) for card in cards.values() if "seed" in card})
    if seeds:
        facts.append(("seed", ", ".join(seeds)))
    cascades = {name: card for name, card in cards.items() if card.get("kind") == "cascade"}
    return facts + [(f"model {name}", told) for name, card in cascades.items() if (told := origin(card))]


def origin(card: dict[str, Any]) -> str:
    """A cascade's network, the model it was adapted from and its licence, as far as its card says them."""
    parameters, init = (card[key] if isinstance(card.get(key), dict) else {} for key in ("parameters", "init"))
    told = [f"network {parameters['network']}"] if "network" in parameters else []
    if init:
        told.append(f"adapted from the model {init.get('model', 'of another folder')}")
        if "retrained" in init:
            told[-1] += f" (layers trained: {init['retrained']})"
    if card.get("licence"):
        told.append(f"licence {card['licence']}")
    return "; ".join(told)
