"""Pairs of donor and canvas: spread evenly, never from the test."""

from __future__ import annotations

import numpy as np
import pytest

from lesionforge.cohort.pairs import plan_pairs, spread_pairs
from lesionforge.cohort.rows import Row


def scan(subject: str, role: str = "patient", split: str = "train", session: str = "", mask: str = "m") -> Row:
    return Row(2, subject, session, role, split, "t", "f", mask if role == "patient" else "")


def plan(rows: list[Row], count: int = 1000, seed: int = 1):
    return plan_pairs(rows, count, np.random.default_rng(seed))


@pytest.mark.parametrize("shape", [(1, 5), (3, 4), (7, 2), (6, 6)])
@pytest.mark.parametrize("seed", range(3))
def test_every_prefix_is_spread_evenly(shape: tuple[int, int], seed: int):
    chosen = spread_pairs(np.ones(shape, bool), 10**6, np.random.default_rng(seed))
    assert len(set(chosen)) == len(chosen) == shape[0] * shape[1]
    for count in range(1, len(chosen) + 1):
        rows, columns = np.array(chosen[:count]).T
        assert np.ptp(np.bincount(rows, minlength=shape[0])) <= 2
        assert np.ptp(np.bincount(columns, minlength=shape[1])) <= 2


def test_all_are_used_before_one_is_used_twice():
    chosen = np.array(spread_pairs(np.ones((5, 5), bool), 5, np.random.default_rng(0)))
    assert sorted(chosen[:, 0]) == sorted(chosen[:, 1]) == list(range(5))


def test_more_scans_begin_with_the_same_ones():
    rows = [scan(f"p{n}") for n in range(4)] + [scan(f"h{n}", "healthy") for n in range(5)]
    assert plan(rows, 7).pairs == plan(rows, 20).pairs[:7]


def test_same_seed_same_pairs_other_seed_others():
    rows = [scan(f"p{n}") for n in range(4)] + [scan(f"h{n}", "healthy") for n in range(5)]
    assert plan(rows, 8, seed=3) == plan(rows, 8, seed=3)
    assert plan(rows, 8, seed=3) != plan(rows, 8, seed=4)


@pytest.mark.parametrize("role", ["healthy", "patient"])
def test_only_training_scans_take_part(role: str):
    rows = [scan("a"), scan("b"), scan("c", role)]
    rows += [scan(f"{kind}{split}", kind, split) for split in ("validation", "test") for kind in ("patient", "healthy")]
    named = {name for pair in plan(rows).pairs for name in pair[1:]}
    assert named == {"sub-a", "sub-b", "sub-c"}


def test_healthy_scans_are_the_canvases_when_there_are_any():
    made = plan([scan("a"), scan("b"), scan("h", "healthy")])
    assert sorted(pair[1:] for pair in made.pairs) == [("sub-a", "sub-h"), ("sub-b", "sub-h")]
    assert not made.filled


def test_without_healthy_scans_patients_are_the_canvases_of_others():
    made = plan([scan("a", session="1"), scan("a", session="2"), scan("b"), scan("c", mask="")])
    assert made.filled
    assert not made.own
    assert made.possible == len(made.pairs) == 2 * 2 + 3
    assert all(donor[:5] != canvas[:5] for _, donor, canvas in made.pairs)
    assert "sub-c" not in {donor for _, donor, _ in made.pairs}


def test_a_single_patient_is_its_own_canvas():
    made = plan([scan("a")])
    assert made.pairs == (("sub-syn0001", "sub-a", "sub-a"),)
    assert made.own


@pytest.mark.parametrize("rows", [[], [scan("h", "healthy")], [scan("a", mask="")]])
def test_no_donor_no_pair(rows: list[Row]):
    assert plan(rows).pairs == ()


def test_ids_count_from_one():
    rows = [scan("a")] + [scan(f"h{n}", "healthy") for n in range(3)]
    assert [pair[0] for pair in plan(rows, 3).pairs] == ["sub-syn0001", "sub-syn0002", "sub-syn0003"]
