"""Laws of test-time flips: a scan and its mirror image are judged alike."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from lesionforge import nets
from lesionforge.cascade.card import cascade_entries
from lesionforge.cascade.settings import CONFIGURATIONS, CascadeConfig
from lesionforge.images import Prepared, read_json
from lesionforge.images.names import ALWAYS
from lesionforge.segment.cascade import lesion_probability
from lesionforge.segment.workflow import Cascade, segment_scan
from lesionforge.train.network import build_network


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, write_blob_scan: Callable[..., Path]) -> Path:
    return write_blob_scan(tmp_path_factory.mktemp("mirrored"), "sub-9", seed=9)


def untrained(network: str) -> dict[str, keras.Model]:
    keras.utils.set_random_seed(1)
    return {name: build_network(network, ALWAYS) for name in ("cnn1", "cnn2")}


@pytest.mark.parametrize("network", ["dense", "valverde2017"])
def test_a_mirrored_scan_has_the_mirrored_probabilities(prepared: Path, network: str) -> None:
    """In blocks and in patches, of a brain that lies askew in its grid."""
    scan = Prepared.open(prepared).read()
    brain = scan.brain.copy()
    brain[: brain.shape[0] // 3] = False
    images, other = [scan.t1w, scan.flair], [scan.t1w[::-1], scan.flair[::-1]]
    models = untrained(network)
    # CNN1 rules out about half, a voxel here and there on one side only.
    plain = replace(CONFIGURATIONS["lesionforge"], candidate_depth_mm=0.0, cnn1_threshold=0.0, mirrored=False)
    first = lesion_probability(models | {"cnn2": models["cnn1"]}, images, brain, plain, 2.0)
    plain = replace(plain, cnn1_threshold=float(np.median(first[first > 0])))
    one = lesion_probability(models, images, brain, replace(plain, mirrored=True), 2.0)
    mirrored = lesion_probability(models, other, brain[::-1], replace(plain, mirrored=True), 2.0)[::-1]
    assert (one > 0).any() and not one[~brain].any()
    np.testing.assert_allclose(mirrored, one, atol=1e-6)
    left = lesion_probability(models, images, brain, plain, 2.0)
    right = lesion_probability(models, other, brain[::-1], plain, 2.0)[::-1]
    assert np.any((left > 0) != (right > 0))
    np.testing.assert_allclose((left + right) / 2, one, atol=1e-6)


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_summary_of_a_scan_says_whether_it_was_mirrored(prepared: Path, tmp_path: Path, mirrored: bool) -> None:
    config = CascadeConfig(mirrored=mirrored)
    (tmp_path / "model").mkdir()
    nets.save_models(tmp_path / "model", untrained("valverde2017"), cascade_entries(config, 2.0))
    assert segment_scan(prepared, Cascade.open(tmp_path / "model"), tmp_path)["mirrored"] is mirrored
    assert read_json(tmp_path / "sub-9/sub-9_desc-segment.json")["mirrored"] is mirrored
