"""Operations on each element of one tensor."""

from __future__ import annotations

import pytest
import torch

from tests.support.coreml_packages import assert_close, random, run

X = random(3, 5)
POSITIVE = X.abs() + 0.1
UNIT = X.tanh() * 0.9
SIMPLE = {
    "abs": (torch.abs, X),
    "acos": (torch.acos, UNIT),
    "asin": (torch.asin, UNIT),
    "atan": (torch.atan, X),
    "atanh": (torch.atanh, UNIT),
    "ceil": (torch.ceil, X),
    "cos": (torch.cos, X),
    "cosh": (torch.cosh, X),
    "erf": (torch.erf, X),
    "exp": (torch.exp, X),
    "exp2": (torch.exp2, X),
    "floor": (torch.floor, X),
    "sign": (torch.sign, X),
    "sin": (torch.sin, X),
    "sinh": (torch.sinh, X),
    "sqrt": (torch.sqrt, POSITIVE),
    "square": (torch.square, X),
    "tan": (torch.tan, UNIT),
    "tanh": (torch.tanh, X),
}


@pytest.mark.parametrize("kind", SIMPLE)
def test_the_function_is_torch_s(kind):
    function, x = SIMPLE[kind]

    (found,) = run(lambda mb, x: getattr(mb, kind)(x=x), {"x": x})

    assert_close(found, function(x))


def test_halves_round_to_the_even_neighbour():
    x = torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.5])

    (found,) = run(lambda mb, x: mb.round(x=x), {"x": x})

    assert found.tolist() == [-2, 0, 0, 2, 2]


def test_clip_and_threshold_bound_values():
    clipped, above = run(
        lambda mb, x: (mb.clip(x=x, alpha=-0.5, beta=0.25), mb.threshold(x=x, alpha=0.1)), {"x": X}
    )

    assert_close(clipped, X.clamp(-0.5, 0.25))
    assert_close(above, X.clamp(min=0.1))


def test_epsilon_is_added_before_the_function():
    found = run(
        lambda mb, x: (
            mb.inverse(x=x, epsilon=0.5),
            mb.log(x=x, epsilon=0.5),
            mb.rsqrt(x=x, epsilon=0.5),
            mb.inverse(x=x),
        ),
        {"x": POSITIVE},
    )

    assert_close(found[0], 1 / (POSITIVE + 0.5))
    assert_close(found[1], torch.log(POSITIVE + 0.5))
    assert_close(found[2], torch.rsqrt(POSITIVE + 0.5))
    assert_close(found[3], 1 / (POSITIVE + 1e-4))


def test_casting_to_integers_cuts_and_to_truth_compares_with_zero():
    x = torch.tensor([-2.7, -0.5, 0.0, 0.5, 2.7])

    numbers, truth = run(
        lambda mb, x: (mb.cast(x=x, dtype="int32"), mb.cast(x=x, dtype="bool")), {"x": x}
    )

    assert numbers.tolist() == [-2, 0, 0, 0, 2]
    assert truth.tolist() == [1, 1, 0, 1, 1]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
def test_small_integers_survive_a_cast_and_back(dtype):
    x = torch.tensor([0, 1, 100, 127], dtype=torch.int32)

    (found,) = run(lambda mb, x: mb.cast(x=mb.cast(x=x, dtype=dtype), dtype="int32"), {"x": x})

    assert found.tolist() == x.tolist()


def test_not_negates():
    x = torch.tensor([True, False])

    (found,) = run(lambda mb, x: mb.logical_not(x=x), {"x": x})

    assert found.tolist() == [0, 1]


def test_results_of_float16_are_rounded_once():
    x = random(64, dtype=torch.float16)

    (found,) = run(lambda mb, x: mb.exp(x=x), {"x": x})

    assert found.dtype == torch.float16
    assert torch.equal(found, x.float().exp().half())
