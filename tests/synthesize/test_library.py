"""What is learned of lesions' brightness, and what a lesion without a FLAIR takes of it."""

import json

import numpy as np
import pytest

from lesionforge.errors import InputError
from lesionforge.images import Scan, label_lesions
from lesionforge.synthesize.library import (
    TrainingLesion,
    draw_profiles,
    hyperintensities,
    lesion_statistics,
    profile_of,
    statistics_from_json,
    statistics_json,
)
from lesionforge.synthesize.sampler import Profile


def test_a_profile_is_the_mean_by_depth() -> None:
    place = np.indices((21, 21, 21)) - 10
    radius = np.sqrt((place**2).sum(axis=0))
    profile = profile_of(np.where(radius <= 9, 9 - radius, -9), radius <= 9)
    assert np.all(np.diff(profile.values) > 1)
    assert profile.spread < 0.6
    one = np.zeros((3, 3, 3), bool)
    one[1, 1, 1] = True
    assert profile_of(np.full(one.shape, 2.0), one) == Profile((2.0,) * 5, 0.0)


def test_statistics_of_a_patient_come_back_from_json(patient: Scan, patient_units: dict[str, np.ndarray]) -> None:
    found = lesion_statistics("sub-01", patient_units, patient.lesion, patient.tissues, patient.brain, 1.0)
    assert len(found) == label_lesions(patient.lesion)[1]
    assert sum(lesion.volume_mm3 for lesion in found) == patient.lesion.sum()
    assert statistics_from_json(json.loads(json.dumps(statistics_json(found)))) == found
    with pytest.raises(InputError, match="no training lesion"):
        statistics_from_json([])


def test_a_lesion_takes_the_profile_of_one_near_in_size_and_place() -> None:
    lesions = [
        TrainingLesion("sub-01", n, volume, place, dict.fromkeys(("t1w", "flair"), Profile((float(n),) * 5, 0.1)))
        for n, (volume, place) in enumerate([(v, p) for v in np.geomspace(10, 10000, 10) for p in ("deep", "juxtacortical")])
    ]
    rng = np.random.default_rng(0)
    drawn = {int(profiles["flair"].values[0]) for profiles in draw_profiles([(12, "deep")] * 50, lesions, rng)}
    assert len(drawn) == 5
    assert all(lesions[n].volume_mm3 < 110 for n in drawn)
    assert sum(lesions[n].place == "deep" for n in drawn) >= 3


def test_small_and_pale_hyperintensities_are_noise() -> None:
    levels = np.zeros((12, 12, 12), np.uint8)
    levels[2:5, 2:5, 2:5] = 5
    levels[6:9, 6:9, 6:9] = 2
    levels[9, 9, 9] = 8
    assert np.array_equal(hyperintensities(levels, 1.0), levels == 5)
