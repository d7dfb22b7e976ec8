"""The same values in another shape or order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.coreml_packages import assert_close, random, run

X = random(2, 3, 4, 1)
CASES = {
    "reshape": (lambda mb, x: mb.reshape(x=x, shape=[4, -1, 2]), X.reshape(4, 3, 2)),
    "reshape that keeps axes from the end": (
        lambda mb, x: mb.reshape(x=x, shape=[1, 0, 0, -1, 0]),
        X.reshape(1, 2, 3, 4, 1),
    ),
    "expand_dims": (
        lambda mb, x: mb.expand_dims(x=x, axes=[-1]),
        X.unsqueeze(-1),
    ),
    "squeeze": (lambda mb, x: mb.squeeze(x=x, axes=[-1]), X.squeeze(-1)),
    "squeeze of all": (lambda mb, x: mb.squeeze(x=x), X.squeeze()),
    "transpose": (lambda mb, x: mb.transpose(x=x, perm=[3, 0, -2, 1]), X.permute(3, 0, 2, 1)),
    "flatten2d": (lambda mb, x: mb.flatten2d(x=x, axis=2), X.reshape(6, 4)),
    "reverse": (lambda mb, x: mb.reverse(x=x, axes=[1, -2]), X.flip(1, 2)),
    "tile": (lambda mb, x: mb.tile(x=x, reps=[1, 2, 3, 2]), X.repeat(1, 2, 3, 2)),
    "concat": (lambda mb, x: mb.concat(values=(x, x, x), axis=-2), torch.cat([X, X, X], 2)),
    "concat by turns": (
        lambda mb, x: mb.concat(values=(x, mb.mul(x=x, y=2.0)), axis=1, interleave=True),
        torch.stack([X, 2 * X], 2).flatten(1, 2),
    ),
    "stack": (lambda mb, x: mb.stack(values=(x, x), axis=1), torch.stack([X, X], 1)),
    "identity": (lambda mb, x: mb.identity(x=x), X),
    "sliding_windows": (
        lambda mb, x: mb.sliding_windows(x=x, axis=2, size=3, stride=1),
        torch.stack([X[:, :, 0:3], X[:, :, 1:4]], 2),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_function_is_torch_s(case):
    build, expected = CASES[case]

    (found,) = run(build, {"x": X})

    assert torch.equal(found, expected)


def test_before_ios_17_zeros_keep_axes_of_the_same_rank():
    (found,) = run(lambda mb, x: mb.reshape(x=x, shape=[0, 0, 2, -1]), {"x": X}, target="iOS16")

    assert torch.equal(found, X.reshape(2, 3, 2, 2))


def test_axes_added_are_those_of_the_result():
    (found,) = run(lambda mb, x: mb.expand_dims(x=x, axes=[0, 2]), {"x": random(3, 4)})

    assert tuple(found.shape) == (1, 3, 1, 4)


def test_shapes_taken_from_other_tensors():
    x, y = random(2, 3, 4), random(6, 5, 4)

    (found,) = run(
        lambda mb, x, y: mb.reshape_like(
            x=x, ref_tensors=(y, y), begins=(0, 2), ends=(1, 0), end_masks=(False, True)
        ),
        {"x": x, "y": y},
    )

    assert torch.equal(found, x.reshape(6, 4))


def test_splits_in_equal_and_in_given_sizes():
    x = random(2, 6, 3)

    found = run(
        lambda mb, x: (
            *mb.split(x=x, num_splits=3, axis=1),
            *mb.split(x=x, split_sizes=[1, 5], axis=-2),
        ),
        {"x": x},
    )

    for one, other in zip(found, (*x.split(2, 1), *x.split([1, 5], 1)), strict=True):
        assert torch.equal(one, other)


def test_channels_become_pixels_and_back():
    x = random(2, 8, 4, 6)

    shuffled, back, blocks, depth = run(
        lambda mb, x: (
            mb.pixel_shuffle(x=x, upscale_factor=2),
            mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(2)),
            mb.depth_to_space(x=x, block_size=2),
            mb.space_to_depth(x=mb.depth_to_space(x=x, block_size=2), block_size=2),
        ),
        {"x": x},
    )

    assert torch.equal(shuffled, torch.pixel_shuffle(x, 2))
    assert torch.equal(back, torch.pixel_unshuffle(x, 2))
    # In a block the places lie outside of the channels: those of place 0 are channels 0 and 1.
    assert torch.equal(blocks[:, :, ::2, ::2], x[:, :2])
    assert torch.equal(blocks[:, :, 1::2, ::2], x[:, 4:6])
    assert torch.equal(depth, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.int32])
def test_values_are_moved_in_their_own_type(dtype):
    x = (random(2, 3) * 1000).to(dtype)

    (found,) = run(lambda mb, x: mb.concat(values=(x, x), axis=0), {"x": x})

    assert found.dtype == dtype
    assert torch.equal(found, torch.cat([x, x]))


def test_a_shape_beyond_any_model_is_refused():
    from qdx.backends.coreml.mil.operations.shapes import tile

    with pytest.raises(ValueError, match="too many"):
        tile(torch.zeros(1000), torch.tensor([10**9]))


def test_small_integers_pass_through():
    x = torch.tensor([[1, 2], [3, 4]], dtype=torch.int32)

    (found,) = run(lambda mb, x: mb.transpose(x=mb.cast(x=x, dtype="int8"), perm=[1, 0]), {"x": x})

    assert_close(found, x.T)
