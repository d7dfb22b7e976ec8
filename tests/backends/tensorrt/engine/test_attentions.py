"""Which softmax of a model is that of an attention."""

from __future__ import annotations

import pytest

from qdx.backends.tensorrt.engine.attentions import attentions_of
from tests.support import rtx_planted as planted
from tests.support.lint_models import model_of

TYPES = "float16[1,64,32] q, float16[1,32,64] k, float16[1,64,64] v"


def test_an_attention_is_a_softmax_between_two_products():
    (found,) = attentions_of(planted.attention(64))

    assert found.name == "attn"
    assert (found.first.name, found.second.name) == ("attn/MatMul", "attn/MatMul_1")


@pytest.mark.parametrize(
    "last",
    [
        pytest.param("y = Relu(p)", id="no product reads it"),
        pytest.param("y = MatMul(v, p)", id="it is what a product weighs, not the weights"),
    ],
)
def test_any_other_softmax_is_none(last):
    body = f"s = MatMul(q, k)\np = Softmax<axis = -1>(s)\n{last}"

    assert attentions_of(model_of(TYPES, "float16[1,64,64] y", body)) == ()
