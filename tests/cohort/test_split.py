"""Splits: by subject, by seed, stable."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from lesionforge.cohort.rows import Row
from lesionforge.cohort.split import Needs, choose_splits, judge_cohort, position

EXPERIMENT = Needs(library=False, real=True, test=True)
AUGMENT = replace(EXPERIMENT, test=False)
# A library gives the lesions, and no network is trained on the arm real.
SYNTHETIC_ONLY = Needs(library=True, real=False, test=True)


def patients(count: int, **cells: str) -> list[Row]:
    return [replace(Row(n + 2, subject=f"p{n}", role="patient", lesion_mask="m"), **cells) for n in range(count)]


def splits(rows: list[Row], seed: int = 1, needs: Needs = EXPERIMENT) -> dict[str, str | None]:
    return {row.scan_id: row.split for row in choose_splits(rows, seed, needs)}


def test_adding_subjects_moves_no_old_one():
    few, many = splits(patients(60)), splits(patients(200))
    assert few == {name: many[name] for name in few}


def test_order_of_rows_does_not_matter():
    rows = patients(30)
    assert splits(rows) == splits(rows[::-1])


def test_another_seed_gives_another_split():
    assert splits(patients(60), seed=1) != splits(patients(60), seed=2)


def test_shares_are_near_what_is_said():
    counts = Counter(splits(patients(2000)).values())
    assert counts["test"] == pytest.approx(400, abs=60)
    assert counts["validation"] == pytest.approx(300, abs=60)
    assert counts["train"] == pytest.approx(1300, abs=80)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [2, 3, 5])
def test_two_patients_suffice_for_an_experiment(count: int, seed: int):
    found = splits(patients(count), seed)
    assert {"train", "test"} <= set(found.values())
    assert not judge_cohort(choose_splits(patients(count), seed, EXPERIMENT), EXPERIMENT, False)


@pytest.mark.parametrize("seed", range(20))
def test_a_single_patient_trains(seed: int):
    rows = choose_splits(patients(1), seed, EXPERIMENT)
    assert rows[0].split == "train"
    assert [problem.text.startswith("no patient of split test") for problem in judge_cohort(rows, EXPERIMENT, False)] == [True]


@pytest.mark.parametrize("seed", range(10))
def test_the_guarantees_take_highest_and_lowest_position(seed: int):
    rows = patients(4)
    order = sorted(rows, key=lambda row: position(seed, row.subject))
    found = splits(rows, seed)
    assert found[order[-1].scan_id] == "train"
    assert found[order[0].scan_id] == "test"


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_what_the_sheet_says_is_kept(split: str):
    rows = patients(20, split=split)
    assert set(splits(rows).values()) == {split}
    assert not any(row.split_drawn for row in choose_splits(rows, 1, EXPERIMENT))


@pytest.mark.parametrize("seed", range(10))
def test_sessions_share_the_split(seed: int):
    rows = [replace(row, session=session) for row in patients(10) for session in ("1", "2")]
    found = splits(rows, seed)
    assert all(found[f"sub-p{n}_ses-1"] == found[f"sub-p{n}_ses-2"] for n in range(10))


def test_a_session_follows_what_another_session_says():
    first, second = (replace(patients(1)[0], session=session) for session in ("1", "2"))
    assert set(splits([replace(first, split="validation"), second]).values()) == {"validation"}


def test_healthy_subjects_train():
    assert set(splits([replace(row, role="healthy", lesion_mask="") for row in patients(30)]).values()) == {"train"}


def test_patients_without_masks_satisfy_no_guarantee():
    rows = choose_splits(patients(30, lesion_mask=""), 1, EXPERIMENT)
    assert len(judge_cohort(rows, EXPERIMENT, False)) == 2
    assert len(judge_cohort(rows, AUGMENT, False)) == 1


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("without", [1, 2, 5])
def test_with_a_library_the_only_mask_is_kept_for_the_test(without: int, seed: int):
    rows = [*patients(1), *(replace(row, subject=f"q{n}") for n, row in enumerate(patients(without, lesion_mask="")))]
    found = splits(rows, seed, SYNTHETIC_ONLY)
    assert found["sub-p0"] == "test"
    assert "train" in found.values()
    assert not judge_cohort(choose_splits(rows, seed, SYNTHETIC_ONLY), SYNTHETIC_ONLY, True)


@pytest.mark.parametrize("seed", range(5))
def test_with_a_library_two_annotated_patients_do_as_well(seed: int):
    assert sorted(splits(patients(2), seed, SYNTHETIC_ONLY).values(), key=str) == ["test", "train"]
