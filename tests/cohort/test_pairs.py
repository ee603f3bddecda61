"""Pairs of donor and canvas: spread evenly, never from the test; loads that follow the donors'."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lesionforge.cohort.pairs import Donor, Plan, plan_pairs, spread_pairs, training_donors
from lesionforge.cohort.rows import Row


def scan(subject: str, role: str = "patient", split: str = "train", session: str = "", mask: str = "m") -> Row:
    return Row(2, subject, session, role, split, "t", "f", mask if role == "patient" else "")


def plan(rows: list[Row], count: int = 24, seed: int = 1, load_ml: float | None = None, more: tuple[Donor, ...] = ()) -> Plan:
    return plan_pairs(rows, [*training_donors(rows, {"m": 7.0}), *more], count, load_ml, seed)


def named(made: Plan) -> list[tuple[str, str]]:
    return [(pair.donor.donor_id, pair.canvas) for pair in made.pairs]


@pytest.mark.parametrize("shape", [(1, 5), (3, 4), (7, 2), (6, 6)])
@pytest.mark.parametrize("seed", range(3))
def test_every_prefix_is_spread_evenly_and_pairs_come_again_after_all_others(shape: tuple[int, int], seed: int):
    size = shape[0] * shape[1]
    chosen = spread_pairs(np.ones(shape, bool), 2 * size + 3, np.random.default_rng(seed), np.ones(shape[1]))
    assert Counter(chosen[:size]).most_common(1)[0][1] == 1
    assert set(Counter(chosen[: 2 * size]).values()) == {2}
    for count in range(1, len(chosen) + 1):
        rows, columns = np.array(chosen[:count]).T
        assert np.ptp(np.bincount(rows, minlength=shape[0])) <= 2
        assert np.ptp(np.bincount(columns, minlength=shape[1])) <= 2


def test_all_are_used_before_one_is_used_twice():
    chosen = np.array(spread_pairs(np.ones((5, 5), bool), 5, np.random.default_rng(0), np.ones(5)))
    assert sorted(chosen[:, 0]) == sorted(chosen[:, 1]) == list(range(5))


def test_more_scans_begin_with_the_same_ones():
    rows = [scan(f"p{n}") for n in range(4)] + [scan(f"h{n}", "healthy") for n in range(5)]
    assert plan(rows, 7).pairs == plan(rows, 60).pairs[:7]


def test_same_seed_same_pairs_other_seed_others():
    rows = [scan(f"p{n}") for n in range(4)] + [scan(f"h{n}", "healthy") for n in range(5)]
    assert plan(rows, 8, seed=3) == plan(rows, 8, seed=3)
    assert plan(rows, 8, seed=3) != plan(rows, 8, seed=4)


@pytest.mark.parametrize("role", ["healthy", "patient"])
def test_only_training_scans_take_part(role: str):
    rows = [scan("a"), scan("b"), scan("c", role)]
    rows += [scan(f"{kind}{split}", kind, split) for split in ("validation", "test") for kind in ("patient", "healthy")]
    assert {name for pair in named(plan(rows)) for name in pair} == {"sub-a", "sub-b", "sub-c"}


def test_healthy_scans_are_the_canvases_when_there_are_any():
    made = plan([scan("a"), scan("b"), scan("h", "healthy")], 2)
    assert sorted(named(made)) == [("sub-a", "sub-h"), ("sub-b", "sub-h")]
    assert not made.filled


def test_without_healthy_scans_patients_are_the_canvases_of_others():
    made = plan([scan("a", session="1"), scan("a", session="2"), scan("b"), scan("c", mask="")], 70)
    assert made.filled
    assert not made.own
    assert len(set(named(made))) == 2 * 2 + 3
    assert all(donor[:5] != canvas[:5] for donor, canvas in named(made))
    assert "sub-c" not in {donor for donor, _ in named(made)}


def test_a_mask_of_a_library_meets_every_canvas_but_its_own_subject():
    library = (
        Donor("lib-a", frozenset("a"), 3.0, "/library/sub-a.nii.gz"),
        Donor("lib-z", frozenset("z"), 4.0, "/library/z.nii.gz"),
    )
    made = plan([scan("a"), scan("b")], 70, more=library)
    assert {pair for pair in named(made) if pair[0].startswith("lib")} == {
        ("lib-a", "sub-b"),
        ("lib-z", "sub-a"),
        ("lib-z", "sub-b"),
    }


def test_a_single_patient_is_its_own_canvas_as_often_as_asked():
    made = plan([scan("a")], 3)
    assert named(made) == [("sub-a", "sub-a")] * 3
    assert made.own


@pytest.mark.parametrize("rows", [[], [scan("h", "healthy")], [scan("a", mask="")]])
def test_no_donor_no_pair(rows: list[Row]):
    assert plan(rows).pairs == ()


def test_ids_count_from_one():
    rows = [scan("a")] + [scan(f"h{n}", "healthy") for n in range(3)]
    assert [pair.synthetic_id for pair in plan(rows, 3).pairs] == ["sub-syn0001", "sub-syn0002", "sub-syn0003"]


def test_loads_are_drawn_from_those_of_the_donors():
    library = tuple(Donor(f"lib-{n}", frozenset(), float(load), "m") for n, load in enumerate(np.geomspace(1, 50, 20)))
    drawn = [pair.load_ml for pair in plan([scan("h", "healthy")], 400, more=library).pairs]
    assert 1 <= min(drawn) < 1.3
    assert 40 < max(drawn) <= 50
    assert np.median(drawn) == pytest.approx(np.sqrt(50), rel=0.25)


def test_of_donors_with_hardly_a_voxel_loads_are_more_than_nothing():
    tiny = (Donor("lib-1", frozenset(), 0.0001, "m"),)
    assert {pair.load_ml for pair in plan_pairs([scan("h", "healthy")], tiny, 3, None, 1).pairs} == {0.001}


def test_a_large_load_goes_to_a_donor_that_has_the_lesions_for_it():
    library = tuple(Donor(f"lib-{n}", frozenset(), float(load), "m") for n, load in enumerate(np.geomspace(1, 50, 20)))
    pairs = plan_pairs([scan("h", "healthy"), scan("g", "healthy")], library, 400, None, 1).pairs
    out_of_reach = [pair for pair in pairs if pair.load_ml > 2 * pair.donor.load_ml]
    assert len(out_of_reach) < 0.05 * len(pairs)
    largest = [pair.load_ml for pair in pairs if pair.donor is library[-1]]
    assert min(largest) < 10 < 40 < max(largest)
    assert plan_pairs([scan("h", "healthy"), scan("g", "healthy")], library, 33, None, 1).pairs == pairs[:33]


def test_a_load_that_is_asked_for_is_that_of_all():
    assert {pair.load_ml for pair in plan([scan("a"), scan("h", "healthy")], 5, load_ml=12.5).pairs} == {12.5}


@pytest.mark.parametrize("annotated", [1, 2])
def test_filled_scans_of_annotated_patients_are_the_canvas_as_often_as_all_others_together(annotated: int):
    rows = [scan(f"a{n}") for n in range(annotated)] + [scan(f"u{n}", mask="") for n in range(4)]
    library = tuple(Donor(f"lib-{n}", frozenset([f"l{n}"]), 5.0, "mask") for n in range(30))
    canvases = Counter(canvas for _, canvas in named(plan(rows, 40, more=library)))
    assert 17 <= sum(canvases[f"sub-a{n}"] for n in range(annotated)) <= 23


@pytest.mark.parametrize("count", [20, 40, 400])
def test_without_a_library_pairs_with_annotated_canvases_come_again_sooner(count: int):
    """Two patients have only two pairs with each other, but are half of what the network is to learn from."""
    rows = [scan(f"a{n}") for n in range(2)] + [scan(f"u{n}", mask="") for n in range(6)]
    canvases = Counter(canvas for _, canvas in named(plan(rows, count)))
    share = (canvases["sub-a0"] + canvases["sub-a1"]) / count
    assert (0.45 if count == 400 else 0.35) <= share <= 0.55
