"""Operations on the elements of two or three tensors."""

from __future__ import annotations

import pytest
import torch

from tests.support.coreml_packages import assert_close, random, run

X, Y = random(2, 3, 4), random(3, 1, seed=1)
SIMPLE = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "real_div": torch.div,
    "floor_div": torch.floor_divide,
    "mod": torch.remainder,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "equal": torch.eq,
    "not_equal": torch.ne,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
}
LOGICAL = {
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
}


@pytest.mark.parametrize("kind", SIMPLE)
def test_the_function_is_torch_s_with_broadcasting(kind):
    (found,) = run(lambda mb, x, y: getattr(mb, kind)(x=x, y=y), {"x": X, "y": Y})

    assert_close(found, SIMPLE[kind](X, Y))


@pytest.mark.parametrize("kind", ["add", "mod", "floor_div", "real_div", "greater", "equal"])
def test_integers_stay_integers(kind):
    x = torch.tensor([-7, -6, 6, 7], dtype=torch.int32)
    expected = {
        "add": [-5, -4, 8, 9],
        "mod": [1, 0, 0, 1],
        "floor_div": [-4, -3, 3, 3],
        "real_div": [-3, -3, 3, 3],
        "greater": [0, 0, 1, 1],
        "equal": [0, 0, 0, 0],
    }

    (found,) = run(lambda mb, x: getattr(mb, kind)(x=x, y=2), {"x": x})

    assert found.tolist() == expected[kind]


def test_powers():
    base = X.abs() + 0.1

    (found,) = run(lambda mb, x, y: mb.pow(x=x, y=y), {"x": base, "y": Y})

    assert_close(found, torch.pow(base, Y))


@pytest.mark.parametrize("kind", LOGICAL)
def test_logic(kind):
    x, y = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])

    (found,) = run(lambda mb, x, y: getattr(mb, kind)(x=x, y=y), {"x": x, "y": y})

    assert_close(found, LOGICAL[kind](x, y))


def test_select_takes_the_first_where_true():
    chosen = torch.tensor([[True], [False], [True]])

    (found,) = run(lambda mb, c, x, y: mb.select(cond=c, a=x, b=y), {"c": chosen, "x": X, "y": Y})

    assert_close(found, torch.where(chosen, X, Y))


def test_sums_of_float16_are_rounded_once():
    x, y = random(200, dtype=torch.float16), random(200, seed=1, dtype=torch.float16)

    (found,) = run(lambda mb, x, y: mb.add(x=x, y=y), {"x": x, "y": y})

    assert torch.equal(found, (x.float() + y.float()).half())
