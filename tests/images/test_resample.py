"""Laws of resampling between grids."""

import ants
import nibabel as nib
import numpy as np
import pytest

from lesionforge.images import resample, to_ants, working_grid, world_matrix
from lesionforge.images.geometry import sub_grid

TURNED = nib.affines.from_matvec(np.array([[0, -2.0, 0], [2, 0, 0], [0, 0, 3]]), [5, -3, 2])
SHEARED = TURNED @ np.array([[1, 0.2, 0, 0], [0, 1, 0.1, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize("affine", [TURNED, SHEARED], ids=["turned", "sheared"])
def test_a_grid_onto_itself_changes_nothing(affine, rng):
    data = rng.normal(size=(9, 10, 11)).astype(np.float32)
    assert np.allclose(resample(data, affine, (data.shape, affine)), data, atol=1e-5)


@pytest.mark.parametrize("affine", [TURNED, SHEARED], ids=["turned", "sheared"])
def test_a_ramp_keeps_its_values_at_every_place(affine):
    place = nib.affines.apply_affine(affine, np.moveaxis(np.indices((12, 13, 14)), 0, -1))
    ramp = (2 * place[..., 0] - place[..., 1] + 0.5 * place[..., 2]).astype(np.float32)
    shape, grid = working_grid(ramp.shape, affine, 1.0)
    there = nib.affines.apply_affine(grid, np.moveaxis(np.indices(shape), 0, -1))
    inside = nib.affines.apply_affine(np.linalg.inv(affine), there)
    inside = ((inside >= 0) & (inside <= np.array(ramp.shape) - 1)).all(axis=-1)
    expected = 2 * there[..., 0] - there[..., 1] + 0.5 * there[..., 2]
    assert inside.sum() > 1000
    assert np.allclose(resample(ramp, affine, (shape, grid))[inside], expected[inside], atol=1e-3)


def test_a_voxel_reaches_half_its_size_and_no_farther():
    ones = np.ones((4, 4, 4), np.float32)
    fine = (12, 12, 12), np.diag([1.0, 1, 1, 1]) @ nib.affines.from_matvec(np.eye(3), [-3.5, -3.5, -3.5])
    line = resample(ones, np.diag([2.0, 2, 2, 1]), fine)[:, 6, 6]
    assert line.tolist() == [0, 0, 0] + [1] * 8 + [0]


def test_a_transform_and_the_way_back_meet(tmp_path, rng):
    transform = ants.new_ants_transform(dimension=3, transform_type="Euler3DTransform")
    transform.set_parameters((0.1, -0.2, 0.15, 3.0, -2.0, 1.0))
    ants.write_transform(transform, str(tmp_path / "rigid.mat"))
    matrix = world_matrix(tmp_path / "rigid.mat")
    volume = ants.smooth_image(to_ants(rng.random((40, 40, 40)), np.eye(4)), 2.0).numpy()
    by_itk = ants.apply_transforms(to_ants(volume, np.eye(4)), to_ants(volume, np.eye(4)), [str(tmp_path / "rigid.mat")]).numpy()
    here = resample(volume, np.eye(4), (volume.shape, np.eye(4)), matrix)
    core = np.s_[10:30, 10:30, 10:30]
    assert np.allclose(here[core], by_itk[core], atol=1e-4)
    back = resample(here, np.eye(4), (volume.shape, np.eye(4)), np.linalg.inv(matrix))
    assert np.abs(back[core] - volume[core]).mean() < 0.1 * volume[core].std()


def test_the_part_of_a_grid_around_a_mask_on_another_grid_holds_it_and_lies_on_the_grid():
    mask = np.zeros((20, 22, 24), bool)
    mask[5:9, 3:12, 10:20] = True
    grid = working_grid(mask.shape, TURNED, 1.0)
    box, (shape, affine) = sub_grid(mask, TURNED, 3.0, grid)
    whole, part = resample(mask, TURNED, grid), resample(mask, TURNED, (shape, affine))
    assert part.shape == whole[box].shape
    assert np.allclose(part, whole[box], atol=1e-5)
    assert part.sum() == pytest.approx(whole.sum())
    assert part.size < 0.5 * whole.size
    assert not part[:3].any() and not part[-3:].any()
