"""Attention as one operation."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as attend

from tests.support.coreml_packages import assert_close, random, run

Q, K, V = random(2, 3, 5, 8), random(2, 3, 7, 8, seed=1), random(2, 3, 7, 6, seed=2)


@pytest.mark.parametrize("mask", [None, "added", "chosen"])
def test_attention_with_and_without_masks(mask):
    inputs = {"q": Q, "k": K, "v": V}
    if mask == "added":
        inputs["m"] = random(5, 7, seed=3)
    if mask == "chosen":
        inputs["m"] = random(2, 1, 5, 7, seed=3) > -1

    (found,) = run(
        lambda mb, q, k, v, m=None: mb.scaled_dot_product_attention(
            query=q, key=k, value=v, attn_mask=m
        ),
        inputs,
    )

    assert_close(found, attend(Q, K, V, attn_mask=inputs.get("m")), tolerance=1e-5)


def test_attention_of_float16_is_rounded_once():
    q, k, v = Q.half(), K.half(), V.half()

    (found,) = run(
        lambda mb, q, k, v: mb.scaled_dot_product_attention(query=q, key=k, value=v),
        {"q": q, "k": k, "v": v},
    )

    exact = attend(q.float(), k.float(), v.float())
    assert found.dtype == torch.float16
    assert float((found.float() - exact).abs().max()) <= 2**-11 * float(exact.abs().max())
