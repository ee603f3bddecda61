"""Laws of patches: what is gathered is what lies in the volume."""

import numpy as np
import pytest

from lesionforge.cascade.settings import CascadeConfig
from lesionforge.images import zscore
from lesionforge.train.network import build_network
from lesionforge.train.patches import CLOSED_MM, candidates, gather, inner_part, patch_volume, turn_half


@pytest.fixture(scope="module")
def volumes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    t1w, flair = rng.normal(size=(2, 18, 20, 16)).astype(np.float32)
    brain = np.zeros(t1w.shape, bool)
    brain[2:17, 1:20, 3:14] = True
    return t1w, flair, brain


def test_gathered_patch_is_a_slice_of_the_padded_volume(volumes) -> None:
    t1w, flair, brain = volumes
    padded = np.pad(np.stack([zscore(t1w, brain), zscore(flair, brain)], axis=-1), [(5, 5)] * 3 + [(0, 0)])
    centres = np.array([(2, 1, 3), (16, 19, 13), (9, 7, 8)])
    patches = gather(patch_volume([t1w, flair], brain, CascadeConfig()), centres)
    assert patches.shape == (3, 11, 11, 11, 2)
    for patch, (x, y, z) in zip(patches, centres, strict=True):
        np.testing.assert_allclose(patch, padded[x : x + 11, y : y + 11, z : z + 11], atol=1e-6)


def test_normalisation_counts_brain_voxels_alone(rng) -> None:
    away = np.indices((18, 20, 16)) - np.array([9, 10, 8])[:, None, None, None]
    brain = (away**2).sum(axis=0) <= 6**2
    images = [rng.normal(mean, 3, brain.shape) + 300 * ~brain for mean in (20, -7)]
    expected = np.zeros((*brain.shape, 2))
    for contrast, image in enumerate(images):
        expected[brain, contrast] = (image[brain] - np.mean(image[brain])) / np.std(image[brain])
    volume = patch_volume(images, brain, CascadeConfig())
    np.testing.assert_array_equal(volume.start, [3, 4, 2])
    np.testing.assert_allclose(volume.data, np.pad(expected[3:16, 4:17, 2:15], [(5, 5)] * 3 + [(0, 0)]), atol=1e-5)


def test_candidates_lie_in_the_brain_and_are_bright(volumes) -> None:
    t1w, flair, brain = volumes
    found = candidates(patch_volume([t1w, flair], brain, CascadeConfig()), brain, flair_z=0.5)
    mask = np.zeros(brain.shape, bool)
    mask[tuple(found.T)] = True
    np.testing.assert_array_equal(mask, brain & (zscore(flair, brain) > 0.5))


@pytest.mark.parametrize("voxel_mm", [1.0, 2.0])
def test_what_is_inside_is_far_from_the_surface_but_not_from_ventricles_or_sulci(voxel_mm: float) -> None:
    side = int(60 / voxel_mm)
    away = [(np.indices((side,) * 3)[axis] - side / 2 + 0.5) * voxel_mm for axis in range(3)]
    from_centre = np.sqrt(sum(axis**2 for axis in away))
    brain = from_centre < 26
    ventricle, sulcus = from_centre < 6, (abs(away[0]) < CLOSED_MM - 3) & (away[1] > 10)
    brain &= ~ventricle & ~sulcus
    np.testing.assert_array_equal(inner_part(brain, 0, voxel_mm), brain)
    inner = inner_part(brain, 4, voxel_mm)
    assert not (inner & ~brain).any()
    assert not inner[from_centre > 26 - 4 + 2].any(), "to the 2 mm of its grid"
    assert inner[brain & (from_centre < 26 - 4 - 3)].all(), "beside the ventricle and the sulcus too"


def test_turning_keeps_centres_and_changes_half() -> None:
    patches = np.random.default_rng(1).normal(size=(10, 11, 11, 11, 2)).astype(np.float32)
    turned = patches.copy()
    turn_half(turned, np.random.default_rng(2))
    np.testing.assert_array_equal(turned[:, 5, 5, 5], patches[:, 5, 5, 5])
    assert (turned != patches).any(axis=(1, 2, 3, 4)).sum() == 5
    np.testing.assert_allclose(turned.sum(axis=(1, 2)), patches.sum(axis=(1, 2)), atol=1e-4)


def test_network_has_the_published_size() -> None:
    network = build_network()
    assert sum(int(np.prod(weight.shape)) for weight in network.trainable_weights) == 189_058
    assert network.output_shape == (None, 2)
