"""Normalizations."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tests.support.coreml_packages import assert_close, random, run

X = random(2, 6, 4, 5) * 3 + 1
GAMMA, BETA = random(6, seed=1), random(6, seed=2)


@pytest.mark.parametrize("shape", [(2, 6, 4), (2, 6, 4, 5), (2, 6, 2, 3, 2)])
def test_batch_norm(shape):
    x, mean, variance = random(*shape), random(6, seed=3), random(6, seed=4).abs()

    scaled, plain = run(
        lambda mb, x: (
            mb.batch_norm(
                x=x,
                mean=mean.numpy(),
                variance=variance.numpy(),
                gamma=GAMMA.numpy(),
                beta=BETA.numpy(),
                epsilon=1e-3,
            ),
            mb.batch_norm(x=x, mean=mean.numpy(), variance=variance.numpy()),
        ),
        {"x": x},
    )

    assert_close(scaled, functional.batch_norm(x, mean, variance, GAMMA, BETA, eps=1e-3))
    assert_close(plain, functional.batch_norm(x, mean, variance))


def test_instance_norm():
    scaled, plain = run(
        lambda mb, x: (
            mb.instance_norm(x=x, gamma=GAMMA.numpy(), beta=BETA.numpy(), epsilon=1e-4),
            mb.instance_norm(x=x),
        ),
        {"x": X},
    )

    assert_close(
        scaled, functional.instance_norm(X, weight=GAMMA, bias=BETA, eps=1e-4), tolerance=1e-5
    )
    assert_close(plain, functional.instance_norm(X), tolerance=1e-5)


def test_layer_norm_of_last_axes():
    gamma, beta = random(4, 5, seed=1), random(4, 5, seed=2)

    (found,) = run(
        lambda mb, x: mb.layer_norm(
            x=x, axes=[-2, -1], gamma=gamma.numpy(), beta=beta.numpy(), epsilon=1e-4
        ),
        {"x": X},
    )

    assert_close(found, functional.layer_norm(X, [4, 5], gamma, beta, 1e-4), tolerance=1e-5)


def test_layer_norm_of_channels_and_of_everything():
    channels, everything = run(
        lambda mb, x: (
            mb.layer_norm(x=x, axes=[1], gamma=GAMMA.numpy(), beta=BETA.numpy()),
            mb.layer_norm(x=x, axes=[0, 1, 2, 3]),
        ),
        {"x": X},
    )

    last = functional.layer_norm(X.movedim(1, -1), [6], GAMMA, BETA).movedim(-1, 1)
    assert_close(channels, last, tolerance=1e-5)
    assert_close(everything, functional.layer_norm(X, X.shape), tolerance=1e-5)


def test_layer_norm_of_large_float16_does_not_overflow():
    x = (random(3, 64) * 3e3).half()

    (found,) = run(lambda mb, x: mb.layer_norm(x=x, axes=[-1], epsilon=1e-5), {"x": x})

    assert_close(found.float(), functional.layer_norm(x.float(), [64]), tolerance=1e-3)


def test_l2_norm_is_over_the_last_three_axes():
    (found,) = run(lambda mb, x: mb.l2_norm(x=x, epsilon=1e-3), {"x": X})

    assert_close(found, X / (X.square().sum((1, 2, 3), keepdim=True) + 1e-3).sqrt())


def test_local_response_norm():
    (found,) = run(
        lambda mb, x: mb.local_response_norm(x=x, size=3, alpha=0.1, beta=0.5, k=2.0), {"x": X}
    )

    assert_close(found, functional.local_response_norm(X, 3, 0.1, 0.5, 2.0))


def test_group_norm_as_converters_spell_it():
    """Reshape, centre, divide, reshape, scale: together, torch's operation."""

    def group_norm(mb, x):
        groups = mb.reshape(x=x, shape=[2, 3, 2, 4, 5])
        centred = mb.sub(x=groups, y=mb.reduce_mean(x=groups, axes=[2, 3, 4], keep_dims=True))
        variance = mb.reduce_mean(x=mb.square(x=centred), axes=[2, 3, 4], keep_dims=True)
        root = mb.sqrt(x=mb.add(x=variance, y=1e-5))
        whole = mb.reshape(x=mb.real_div(x=centred, y=root), shape=[2, 6, 4, 5])
        ones = torch.ones(6).numpy()
        return mb.batch_norm(
            x=whole,
            mean=0 * ones,
            variance=ones,
            gamma=GAMMA.numpy(),
            beta=BETA.numpy(),
            epsilon=0.0,
        )

    (found,) = run(group_norm, {"x": X})

    assert_close(found, functional.group_norm(X, 3, GAMMA, BETA), tolerance=1e-5)
