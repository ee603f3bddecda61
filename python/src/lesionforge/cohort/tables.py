"""The folder that the cohort stage writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lesionforge import __version__
from lesionforge.cohort.folds import Fold
from lesionforge.cohort.pairs import Pair, Plan
from lesionforge.cohort.rows import Problem, Row
from lesionforge.images import new_folder, write_json, write_tsv

COHORT_COLUMNS = {
    "id": "name of the scan: sub-<subject>, with _ses-<session> where there are sessions",
    "subject": "subject label without sub-",
    "session": "session label without ses-; empty without sessions",
    "role": "patient or healthy",
    "split": "train, validation or test (with folds, test for who is tested in turn); empty where the scan is only segmented",
    "t1w": "absolute path of the T1-weighted scan",
    "flair": "absolute path of the FLAIR scan",
    "t2w": "absolute path of the T2-weighted scan; empty where the cohort has none",
    "pdw": "absolute path of the proton-density-weighted scan; empty where the cohort has none",
    "lesion_mask": "absolute path of the manual lesion mask; empty without one",
    "brain_mask": "absolute path of the brain mask, `stripped` where the scan holds only brain, empty without one",
}
FOLDS_COLUMNS = {
    "fold": "subject that the fold tests; empty where there is one fold",
    "id": "name of a scan that takes part in the fold",
    "subject": "subject label without sub-",
    "role": "patient or healthy",
    "split": "its split in this fold",
    "lesion_mask": "absolute path of its manual lesion mask; empty without one that the fold may use",
}
PAIRS_COLUMNS = {
    "synthetic_id": "name of the scan to make",
    "donor": "id of the patient scan, or of the mask of a library, whose lesions are transplanted",
    "canvas": "id of the scan that receives them",
    "split": "split of the synthetic scan: that of its donor and canvas",
    "load_ml": "lesion load to aim at, in millilitres; empty for the kinds cla and mix",
    "library_mask": "absolute path of the donor's lesion mask in template space; empty where the donor is a patient",
    "fold": "subject that the fold tests which the scan is made for; empty where there is one fold",
    "kind": "syn: lesions are painted; mix: they are pasted with the donor's intensities; cla: the donor's scan is changed",
}
PROBLEMS_COLUMNS = {
    "id": "name of a scan, or of a mask of a library, that was left out because a file of it is broken",
    "column": "which of its files",
    "problem": "what is wrong with it and what to do",
}
TABLES = ("cohort", "folds", "pairs", "problems")
FILES = {*(f"{name}.{ending}" for name in TABLES for ending in ("tsv", "json")), "warnings.txt", "dataset_description.json"}


def write_cohort(
    out: Path,
    rows: Sequence[Row],
    folds: Sequence[Fold],
    plan: Plan,
    refused: Sequence[tuple[str, Problem]],
    warnings: Sequence[str],
) -> None:
    """Write the tables with their data dictionaries, warnings.txt and dataset_description.json as the whole folder `out`.

    `refused` holds (id, problem) for each problem of a scan or mask that was left out.
    """
    import pandas as pd

    cohort = pd.DataFrame([asdict(row) | {"id": row.scan_id} for row in rows])
    in_folds = [asdict(row) | {"id": row.scan_id, "fold": fold.label} for fold in folds for row in fold.rows]
    pairs = pd.DataFrame([planned_row(pair) for pair in plan.pairs], columns=list(PAIRS_COLUMNS))
    problems = pd.DataFrame([(scan, problem.column, problem.text) for scan, problem in refused], columns=list(PROBLEMS_COLUMNS))
    with new_folder(out, own=FILES) as folder:
        write_tsv(cohort, folder / "cohort.tsv", COHORT_COLUMNS)
        write_tsv(pd.DataFrame(in_folds, columns=list(FOLDS_COLUMNS)), folder / "folds.tsv", FOLDS_COLUMNS)
        write_tsv(pairs, folder / "pairs.tsv", PAIRS_COLUMNS)
        write_tsv(problems, folder / "problems.tsv", PROBLEMS_COLUMNS)
        (folder / "warnings.txt").write_text("".join(f"{line}\n" for line in warnings), encoding="utf-8")
        write_json(
            {
                "Name": "lesionforge cohort",
                "BIDSVersion": "1.10.0",
                "DatasetType": "derivative",
                "GeneratedBy": [{"Name": "lesionforge", "Version": __version__}],
            },
            folder / "dataset_description.json",
        )


def planned_row(pair: Pair) -> dict[str, object]:
    """The row of pairs.tsv of one scan to make."""
    return {
        "synthetic_id": pair.synthetic_id,
        "donor": pair.donor.donor_id,
        "canvas": pair.canvas,
        "split": "train",
        "load_ml": pair.load_ml if pair.kind == "syn" else "",
        "library_mask": pair.donor.mask,
        "fold": pair.fold,
        "kind": pair.kind,
    }
