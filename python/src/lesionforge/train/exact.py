"""Exact inference of the network `valverde2017` on many voxels of a scan at once: neighbouring patches share their convolutions.

Patch by patch, what overlapping patches have in common is computed again in each of them. It can be shared wherever it is the
same in all: everywhere but at the border of the patch, where convolutions see zeros instead of the scan. Of that border pooling
keeps the low end of each axis only: 11 voxels become 5 (the last is dropped), then 2 (again). Along one axis, p being the first
voxel of the patch:

- First convolution: voxel p has no neighbour below, all others that are kept have both. Pooled over (v, v + 1) for every voxel v
  of the scan it gives two maps: `border`, which the patch reads at p, and `inner`, which it reads at p + 2, 4, 6 and 8. In space
  these are 2 x 2 x 2 maps.
- Second convolution: its voxels 0 to 3 lie at p, p + 2, p + 4, p + 6. The low half of what pooling keeps is the larger of voxels
  0 and 1, which read `border`; it belongs to this patch alone. The high half is the larger of voxels 2 and 3, which read `inner`
  only, so that other patches have them too. In space there are 2 x 2 x 2 halves. Each is one product of matrices: a row holds the
  3 x 3 x 3 places of the maps that a voxel reads, the columns are the filters for each combination of low voxels.

The same numbers are added in another order, so that probabilities agree to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionforge.train.network import PATCH

if TYPE_CHECKING:
    import keras

# Voxels along each side of a block whose maps are in memory at once, and rows of a product of matrices.
BLOCK = 32
ROWS = 8192
# Patches of a block from which on sharing is faster, measured with patches strewn at random, where least is shared.
ENOUGH = 2000
# The last voxel of the pooled maps that a patch reads, from its first one on.
REACH = 8
HALVES = tuple(product((0, 1), repeat=3))
LAYERS = ["InputLayer", *2 * ["Conv3D", "BatchNormalization", "ReLU", "MaxPooling3D"], "Flatten", "Dropout", "Dense", "Dense"]

Tensor = Any
"""An array of the Keras backend."""


@dataclass(frozen=True)
class SharedWeights:
    """The network's weights as the products need them, scales of batch normalisation included.

    `first` is [3, 3, 3, contrast, 8 maps x filters]; `second` has a matrix for each of `HALVES`, of 27 places x channels rows.
    """

    first: Tensor
    first_shift: Tensor
    second: tuple[Tensor, ...]
    second_shift: Tensor
    dense: tuple[Tensor, ...]


def can_share(network: keras.Model) -> bool:
    """Whether a network has the layers of `valverde2017`.

    `nicmslesions` cannot share: its PReLU slopes differ from voxel to voxel of the patch, so that no two patches have a value
    in common.
    """
    return network.input_shape[1:4] == (PATCH,) * 3 and [type(layer).__name__ for layer in network.layers] == LAYERS


def crowded(corners: np.ndarray) -> np.ndarray:
    """Which of the patches that begin at `corners` [n, 3] lie among so many others that sharing is faster: bool [n]."""
    found = np.zeros(len(corners), bool)
    for _, chosen in _blocks(corners):
        found[chosen] = len(chosen) >= ENOUGH
    return found


def score_shared(network: keras.Model, data: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Lesion probabilities float32 [n] of the patches that begin at `corners` [n, 3] of `data` (float32 [x, y, z, contrast]).

    Every patch lies inside `data`; corners may come in any order. `network` is one that `can_share`. Memory is bounded by that of
    a block, a few hundred MB.
    """
    weights = _shared_weights(network)
    found = np.empty(len(corners), np.float32)
    for start, chosen in _blocks(corners):
        found[chosen] = _score_block(weights, _cut(data, start), corners[chosen] - start)
    return found


def _shared_weights(network: keras.Model) -> SharedWeights:
    from keras.ops import convert_to_tensor as tensor

    first, norm1, second, norm2, dense1, dense2 = [layer for layer in network.layers if layer.weights]
    kernel1, shift1 = folded(first, norm1)
    kernel2, shift2 = folded(second, norm2)
    # The map (i, j, k) is `border` along the axes where it is 1: without the neighbours below there.
    maps = []
    for border in HALVES:
        cut = kernel1.copy()
        for axis in np.flatnonzero(border):
            cut[(slice(None),) * axis + (0,)] = 0
        maps.append(cut)
    return SharedWeights(
        first=tensor(np.concatenate(maps, axis=-1)),
        first_shift=tensor(shift1),
        second=tuple(tensor(_half_matrix(kernel2, half)) for half in HALVES),
        second_shift=tensor(shift2),
        dense=tuple(tensor(weight) for layer in (dense1, dense2) for weight in layer.get_weights()),
    )


def folded(convolution: keras.Layer, norm: keras.Layer) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and shift of a convolution, with or without a bias, and the batch normalisation behind it."""
    kernel, *bias = convolution.get_weights()
    gamma, beta, mean, variance = norm.get_weights()
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return np.asarray(kernel * scale), np.asarray(beta + (sum(bias) - mean) * scale)


def _half_matrix(kernel: np.ndarray, half: tuple[int, ...]) -> np.ndarray:
    """The second convolution for one half: [27 x channels, combinations of low voxels x filters]."""
    # Along an axis [voxel, place read, tap]: low voxels 0 and 1 read p, p + 2, p + 4; a high one reads what lies around it.
    low = np.zeros((2, 3, 3), kernel.dtype)
    low[0, (0, 1), (1, 2)] = low[1, (0, 1, 2), (0, 1, 2)] = 1
    ways = [np.eye(3, dtype=kernel.dtype)[None] if high else low for high in half]
    matrix = np.einsum("api,bqj,crk,ijkmf->pqrmabcf", *ways, kernel, optimize=True)
    return np.ascontiguousarray(matrix.reshape(27 * kernel.shape[3], -1))


def _blocks(corners: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """First voxel of each block that holds a corner, and the numbers of its corners."""
    if not len(corners):
        return
    blocks, number = np.unique(corners // BLOCK, axis=0, return_inverse=True)
    number = number.reshape(-1)
    order = np.argsort(number, kind="stable")
    for block, chosen in zip(blocks, np.split(order, np.flatnonzero(np.diff(number[order])) + 1), strict=True):
        yield block * BLOCK, chosen


def _cut(data: np.ndarray, start: np.ndarray) -> np.ndarray:
    """A block of the scan, with one voxel before it and all that its patches read behind it; zero outside the scan."""
    cut = np.zeros((*(BLOCK + PATCH,) * 3, data.shape[-1]), np.float32)
    part = data[tuple(slice(max(at - 1, 0), at + BLOCK + PATCH - 1) for at in start)]
    # The voxel before the block is a neighbour of maps that no patch of the block reads, so that zeros serve as well.
    inside = tuple(slice(int(at == 0), int(at == 0) + size) for at, size in zip(start, part.shape, strict=False))
    cut[inside] = part
    return cut


def _score_block(weights: SharedWeights, block: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Probabilities of patches that begin at voxels [n, 3] of a block."""
    from keras import ops

    maps = _pooled_maps(weights, block)
    side = BLOCK + REACH
    first = np.ravel_multi_index(tuple(corners.T), (side,) * 3)
    halves = []
    for half, matrix in zip(HALVES, weights.second, strict=True):
        read, where = _distinct(first, _steps(half, side), side**3)
        halves.append((_second(maps, matrix, weights.second_shift, half, read, side), where))
    probabilities = []
    for begin in range(0, len(first), ROWS):
        flow = []
        for values, where in halves:
            shifted = [ops.take(values, one[begin : begin + ROWS], axis=0) for one in where]
            flow.append(ops.max(ops.stack(shifted), axis=0) if len(shifted) > 1 else shifted[0])
        kernel1, bias1, kernel2, bias2 = weights.dense
        hidden = ops.relu(ops.matmul(ops.concatenate(flow, axis=1), kernel1) + bias1)
        probabilities.append(ops.convert_to_numpy(ops.softmax(ops.matmul(hidden, kernel2) + bias2))[:, 1])
    return np.concatenate(probabilities)


def _pooled_maps(weights: SharedWeights, block: np.ndarray) -> Tensor:
    """The first convolution of a block, pooled: [voxels x 8 maps, filters]."""
    from keras import ops

    flow = ops.conv(block[None], weights.first, padding="valid", data_format="channels_last")[0]
    flow = ops.reshape(flow, (*(BLOCK + REACH + 1,) * 3, 2, 2, 2, -1))
    # Of a pair of voxels only the lower one can be at the border of the patch.
    flow = ops.maximum(flow[:-1], flow[1:, :, :, :1])
    flow = ops.maximum(flow[:, :-1], flow[:, 1:, :, :, :1])
    flow = ops.maximum(flow[:, :, :-1], flow[:, :, 1:, :, :, :1])
    return ops.relu(ops.reshape(flow, (-1, len(weights.first_shift))) + weights.first_shift)


def _steps(half: tuple[int, ...], side: int) -> np.ndarray:
    """From the first voxel of a patch to the second convolution's voxels of a half, in flat numbers of a block."""
    ways = [(4, 6) if high else (0,) for high in half]
    return np.array([(x * side + y) * side + z for x, y, z in product(*ways)])


def _distinct(first: np.ndarray, steps: np.ndarray, size: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The distinct numbers below `size` among `first` plus each step, and where each of these sums lies among them."""
    wanted = np.zeros(size, bool)
    for step in steps:
        wanted[first + step] = True
    place = np.cumsum(wanted, dtype=np.int32) - 1
    return np.flatnonzero(wanted), [place[first + step] for step in steps]


def _second(maps: Tensor, matrix: Tensor, shift: Tensor, half: tuple[int, ...], voxels: np.ndarray, side: int) -> Tensor:
    """The second convolution of a half at voxels [n], pooled over the low ones: [n, filters]."""
    from keras import ops

    places = []
    for place in product(range(3), repeat=3):
        # A low half reads from its first voxel on, there from the map `border`; a high one reads around its voxel.
        x, y, z = (2 * (at - high) for at, high in zip(place, half, strict=True))
        i, j, k = (int(at == high == 0) for at, high in zip(place, half, strict=True))
        places.append(8 * ((x * side + y) * side + z) + (2 * i + j) * 2 + k)
    parts = []
    for begin in range(0, len(voxels), ROWS):
        read = (8 * voxels[begin : begin + ROWS, None] + np.array(places)).astype(np.int32)
        rows = ops.reshape(ops.take(maps, read, axis=0), (len(read), -1))
        flow = ops.reshape(ops.matmul(rows, matrix), (len(read), -1, len(shift)))
        parts.append(ops.relu(ops.max(flow, axis=1) + shift))
    return ops.concatenate(parts)
