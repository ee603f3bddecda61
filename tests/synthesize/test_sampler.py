"""Laws of the sampler: same JSON same voxels, loads follow, an unchanged lesion stays itself, mirrored twice too."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy import ndimage

from lesionforge.images import Scan, label_lesions
from lesionforge.synthesize.levels import ALWAYS, FLAIR
from lesionforge.synthesize.midsagittal import midsagittal_reflection
from lesionforge.synthesize.sampler import Candidate, Draw, LesionDraw, Profile, apply_draw, draw_lesions
from lesionforge.synthesize.transplant import Lesion, Room, transplant_lesions

PROFILES = dict.fromkeys(ALWAYS, Profile((0.9, 1.5, 2.0, 2.5, 3.0), 0.2))
PLAIN = LesionDraw(1, False, 1.0, dict.fromkeys(ALWAYS, 0), 0.0, 7, None)


def middle_mirror(shape: tuple[int, ...]) -> np.ndarray:
    matrix = np.diag([-1.0, 1, 1, 1])
    matrix[0, 3] = shape[0] - 1
    return matrix


def laid(lesions: list[Lesion], shape: tuple[int, ...]) -> np.ndarray:
    """The levels of lesions that all lie inside a grid, [contrast, x, y, z]."""
    return transplant_lesions(lesions, Room(np.ones(shape, bool), np.zeros(shape, bool)), 1.0).levels


def apply(draws: list[LesionDraw], scan: Scan) -> np.ndarray:
    numbers = label_lesions(scan.lesion)[0].astype(np.uint16)
    mirror = middle_mirror(numbers.shape)
    return laid(apply_draw(draws, numbers, {"t1w": scan.t1w, "flair": scan.flair}, frozenset(), mirror, 1.0), numbers.shape)


def draw(seed: int, load_ml: float | None = 0.4, profiles: dict[str, Profile] | None = None) -> Draw:
    candidates = [Candidate(n, volume, profiles) for n, volume in enumerate((100.0, 33.0, 30.0, 110.0), start=1)]
    chosen = draw_lesions(candidates, load_ml, np.random.default_rng(seed))
    return Draw("sub-syn0001", "sub-01", "sub-02", seed, load_ml, "0", chosen)


@pytest.mark.parametrize("profiles", [None, PROFILES])
def test_the_same_json_gives_the_same_voxels(patient: Scan, profiles: dict[str, Profile] | None) -> None:
    first = draw(3, profiles=profiles)
    again = Draw.from_json(json.loads(json.dumps(asdict(first))))
    assert again == first
    assert np.array_equal(apply(list(first.lesions), patient), apply(list(again.lesions), patient))
    assert not np.array_equal(apply(list(first.lesions), patient), apply(list(draw(4, profiles=profiles).lesions), patient))


def test_an_unchanged_lesion_is_the_donors(patient: Scan) -> None:
    numbers = label_lesions(patient.lesion)[0]
    assert np.array_equal(apply([PLAIN], patient)[FLAIR] > 0, numbers == 1)


def test_a_lesion_on_the_other_side_is_its_mirror_image(patient: Scan) -> None:
    mirrored = apply([replace(PLAIN, mirrored=True)], patient)
    assert np.array_equal(mirrored[:, ::-1], apply([PLAIN], patient))


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.4])
def test_volume_follows_its_factor_and_the_lesion_stays_whole(patient: Scan, factor: float) -> None:
    changed = apply([replace(PLAIN, volume_factor=factor, deformation_mm=1.5)], patient)[FLAIR] > 0
    size = np.count_nonzero(label_lesions(patient.lesion)[0] == 1)
    assert np.count_nonzero(changed) == round(size * factor)
    assert label_lesions(changed)[1] == 1
    assert not (changed & ~ndimage.binary_dilation(patient.lesion, iterations=4)).any()


def test_brightness_shifts_by_whole_levels_within_their_range(patient: Scan) -> None:
    numbers = np.zeros((9, 9, 9), np.uint16)
    numbers[3:6, 3:6, 3:6] = 1
    flair = np.full(numbers.shape, 1.2)  # level 3
    flair[4, 4, 4] = -5  # dark, but a lesion
    donor = {"t1w": np.full(numbers.shape, 0.1), "flair": flair}  # level 0 in the T1w
    for shift in (-1, 0, 1):
        shifts = {"t1w": shift, "flair": shift}
        (lesion,) = apply_draw([replace(PLAIN, level_shifts=shifts)], numbers, donor, frozenset({1}), np.eye(4), 1.0)
        inside = lesion.levels[:, lesion.mask]
        assert np.bincount(inside[FLAIR], minlength=6)[3 + shift] == 26
        assert inside[FLAIR].size == 27 and inside[FLAIR].min() == 1
        assert (inside[1 - FLAIR] == max(shift, 0)).all()
        assert lesion.touches_grey_matter


def test_a_profile_makes_the_core_brighter_than_the_rim() -> None:
    numbers = np.zeros((21, 21, 21), np.uint16)
    numbers[((np.indices(numbers.shape) - 10) ** 2).sum(axis=0) <= 64] = 1
    levels = laid(apply_draw([replace(PLAIN, profiles=PROFILES)], numbers, None, frozenset(), np.eye(4), 1.0), numbers.shape)[
        FLAIR
    ]
    assert levels[8:13, 8:13, 8:13].mean() > levels[(levels > 0) & ~ndimage.binary_erosion(levels > 0)].mean() + 3


def test_loads_follow_what_is_asked_for() -> None:
    candidates = [Candidate(n, volume) for n, volume in enumerate(np.geomspace(5, 4000, 40), start=1)]
    total_ml = sum(candidate.volume_mm3 for candidate in candidates) / 1000
    for load_ml in (0.5, 5.0, total_ml, 1.5 * total_ml):
        errors = []
        for seed in range(40):
            chosen = draw_lesions(candidates, load_ml, np.random.default_rng(seed))
            drawn_ml = sum(candidates[one.lesion - 1].volume_mm3 * one.volume_factor for one in chosen) / 1000
            errors.append(abs(drawn_ml / load_ml - 1))
            assert len({(one.lesion, one.mirrored) for one in chosen}) == len(chosen)
        # No draw of few lesions need come near a load, but nearly all do.
        assert np.median(errors) < 0.01
        assert np.quantile(errors, 0.9) < 0.05


@pytest.mark.parametrize("seed", range(100))
def test_the_last_lesion_comes_only_if_the_load_comes_nearer_with_it(seed: int) -> None:
    volumes = (1000, 400, 300, 200, 120, 80, 60)
    chosen = draw_lesions([Candidate(n, volume) for n, volume in enumerate(volumes)], 1.0, np.random.default_rng(seed))
    drawn = [volumes[one.lesion] * one.volume_factor for one in chosen]
    assert len(drawn) == 1 or abs(sum(drawn) - 1000) <= abs(sum(drawn[:-1]) - 1000)


def test_without_a_load_each_lesion_comes_once() -> None:
    assert sorted(one.lesion for one in draw(1, None).lesions) == [1, 2, 3, 4]


def test_a_load_below_the_smallest_lesion_gives_one_lesion_and_no_lesions_give_none() -> None:
    assert len(draw(1, 0.001).lesions) == 1
    assert draw_lesions([], 1.0, np.random.default_rng(0)) == ()


def test_the_midsagittal_plane_of_a_turned_head_is_found() -> None:
    """Two unequal balls in each half of an ellipsoid, turned by 8 degrees about z and shifted."""
    turn = np.deg2rad(8)
    matrix = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    place = np.tensordot(matrix, np.indices((80, 80, 80)) - np.reshape([43, 40, 38], (3, 1, 1, 1)), axes=1)
    brain = ((place / np.reshape([26, 32, 24], (3, 1, 1, 1))) ** 2).sum(axis=0) <= 1
    t1w = brain.astype(np.float32)
    for x, y, z, radius in ((12, 10, 3, 6), (8, -14, -5, 8)):
        for side in (-1, 1):
            t1w += ((place - np.reshape([side * x, y, z], (3, 1, 1, 1))) ** 2).sum(axis=0) <= radius**2
    reflection = midsagittal_reflection(t1w, brain, 1.0)
    assert np.allclose(reflection @ reflection, np.eye(4), atol=1e-9)
    mirrored = ndimage.affine_transform(t1w, reflection[:3, :3], reflection[:3, 3], order=1)
    assert np.abs(mirrored - t1w)[brain].mean() < 0.05
    assert np.allclose(reflection[0, :2], [-np.cos(2 * turn), np.sin(2 * turn)], atol=0.03)


def test_without_a_brain_the_mirror_is_the_middle_of_the_grid() -> None:
    reflection = midsagittal_reflection(np.zeros((9, 8, 7), np.float32), np.zeros((9, 8, 7), bool), 1.0)
    assert np.array_equal(reflection, middle_mirror((9, 8, 7)))
