"""Operations that reduce axes, and running sums."""

from __future__ import annotations

import pytest
import torch

from tests.support.coreml_packages import assert_close, random, run

X = random(2, 3, 4).abs() + 0.1
FUNCTIONS = {
    "reduce_sum": lambda x, axes, keep: x.sum(axes, keepdim=keep),
    "reduce_mean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "reduce_max": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "reduce_min": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "reduce_prod": lambda x, axes, keep: x.log().sum(axes, keepdim=keep).exp(),
    "reduce_l1_norm": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "reduce_l2_norm": lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt(),
    "reduce_log_sum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "reduce_log_sum_exp": lambda x, axes, keep: x.logsumexp(axes, keepdim=keep),
    "reduce_sum_square": lambda x, axes, keep: x.square().sum(axes, keepdim=keep),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_over_axes_with_and_without_keeping_them(kind):
    kept, dropped, whole = run(
        lambda mb, x: (
            getattr(mb, kind)(x=x, axes=[1, -1], keep_dims=True),
            getattr(mb, kind)(x=x, axes=[0], keep_dims=False),
            getattr(mb, kind)(x=x, keep_dims=True),
        ),
        {"x": X},
    )

    assert_close(kept, FUNCTIONS[kind](X, [1, 2], True), tolerance=1e-5)
    assert_close(dropped, FUNCTIONS[kind](X, [0], False), tolerance=1e-5)
    assert_close(whole, FUNCTIONS[kind](X, [0, 1, 2], True), tolerance=1e-5)


@pytest.mark.parametrize("target", ["iOS16", "iOS17"])
def test_positions_of_extremes_are_the_first(target):
    x = torch.tensor([[1.0, 3.0, 3.0, 0.0], [5.0, 0.0, 0.0, 5.0]])

    largest, smallest = run(
        lambda mb, x: (
            mb.reduce_argmax(x=x, axis=1),
            mb.reduce_argmin(x=x, axis=-1, keep_dims=True),
        ),
        {"x": x},
        target=target,
    )

    assert largest.tolist() == [1, 0]
    assert smallest.tolist() == [[3], [1]]


def test_positions_may_be_small_integers():
    (found,) = run(lambda mb, x: mb.reduce_argmax(x=x, axis=1, output_dtype="uint16"), {"x": X})

    assert_close(found, X.argmax(1))


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_running_sums(exclusive, reverse):
    (found,) = run(
        lambda mb, x: mb.cumsum(x=x, axis=1, exclusive=exclusive, reverse=reverse), {"x": X}
    )

    ordered = X.flip(1) if reverse else X
    sums = ordered.cumsum(1) - (ordered if exclusive else 0)
    assert_close(found, sums.flip(1) if reverse else sums)
