"""Products of matrices."""

from __future__ import annotations

import pytest
import torch

from tests.support.coreml_packages import assert_close, random, run

WEIGHT, BIAS = random(6, 4, seed=1), random(6, seed=2)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)])
def test_linear(shape):
    x = random(*shape)

    biased, plain = run(
        lambda mb, x: (
            mb.linear(x=x, weight=WEIGHT.numpy(), bias=BIAS.numpy()),
            mb.linear(x=x, weight=WEIGHT.numpy()),
        ),
        {"x": x},
    )

    assert_close(biased, x @ WEIGHT.T + BIAS)
    assert_close(plain, x @ WEIGHT.T)


@pytest.mark.parametrize("transpose_x", [False, True])
@pytest.mark.parametrize("transpose_y", [False, True])
def test_matmul_transposes_and_broadcasts(transpose_x, transpose_y):
    x, y = random(2, 1, 3, 4), random(5, 4, 6, seed=1)
    given = {
        "x": x.mT.contiguous() if transpose_x else x,
        "y": y.mT.contiguous() if transpose_y else y,
    }

    (found,) = run(
        lambda mb, x, y: mb.matmul(x=x, y=y, transpose_x=transpose_x, transpose_y=transpose_y),
        given,
    )

    assert_close(found, x @ y)


def test_matmul_of_float16_sums_in_float32():
    x, y = random(4, 512, dtype=torch.float16), random(512, 4, seed=1, dtype=torch.float16)

    (found,) = run(lambda mb, x, y: mb.matmul(x=x, y=y), {"x": x, "y": y})

    assert torch.equal(found, (x.float() @ y.float()).half())


@pytest.mark.parametrize(
    ("equation", "first", "second"),
    [
        ("nchw,nwhu->nchu", (2, 3, 4, 5), (2, 5, 4, 6)),
        ("chw,whr->chr", (3, 4, 5), (5, 4, 6)),
        ("bkhc,bchq->bkhq", (1, 7, 1, 5), (1, 5, 1, 3)),
        ("bchk,bkhq->bchq", (2, 5, 1, 7), (1, 7, 1, 3)),
    ],
)
def test_einsum_as_split_attention_uses_it(equation, first, second):
    x, y = random(*first), random(*second, seed=1)

    (found,) = run(lambda mb, x, y: mb.einsum(values=(x, y), equation=equation), {"x": x, "y": y})

    assert_close(found, torch.einsum(equation, x, y))
