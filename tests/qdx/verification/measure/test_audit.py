from __future__ import annotations

import math
from dataclasses import replace

import pytest

from qdx.backends.contract import KernelExecution
from qdx.verification.measure.audit import audit_result, audit_to_json
from tests.support.audited_sites import site


def kernel(precision, *keys, share=None):
    return KernelExecution(keys[0] if keys else "", f"kernel_{precision}", precision, keys, share)


def audit(sites, kernels):
    return audit_result("unet", {"unet.forward": sites}, {"unet.forward": kernels})


def test_shares_are_of_multiply_accumulates():
    found = audit(
        [site("a", 300), site("b", 100), site("c", 600, "float", quantized=False)],
        [kernel("int8", "a", share=0.2), kernel("float32", "b", share=0.2), kernel("", share=0.1)],
    )

    assert found.planned_share == pytest.approx(0.4)
    assert found.executed_share == pytest.approx(0.75)
    assert found.time_share == pytest.approx(0.4)
    assert [(one.key, one.macs) for one in found.downgraded] == [("b", 100)]
    assert found.downgraded[0].why == "`kernel_float32` computed it in float32"


def test_parts_by_stage_and_role_add_up_to_the_whole():
    sites = [site("a", 300), site("b", 100), site("c", 600, "float", quantized=False), site("d", 0)]
    for one, stage, role in zip(
        sites, ("down.0", "down.0", "mid", ""), ("conv", "conv", "conv", "norm"), strict=True
    ):
        one.site = replace(one.site, stage=stage, role=role)
    found = audit(sites, [kernel("int8", "a"), kernel("float32", "b")])

    assert found.to_json()["parts"] == [
        {"stage": "down.0", "role": "conv", "macs": 400, "planned": 400, "executed": 300},
        {"stage": "mid", "role": "conv", "macs": 600, "planned": 0, "executed": 0},
    ]


def test_a_site_that_no_kernel_names_counts_as_downgraded():
    found = audit([site("a")], [kernel("int8", "b")])

    assert found.executed_share == 0
    assert "no kernel" in found.downgraded[0].why


def test_a_site_that_one_of_its_kernels_computes_in_floats_is_downgraded():
    found = audit([site("a")], [kernel("int8", "a"), kernel("bfloat16", "a")])

    assert found.executed_share == 0


@pytest.mark.parametrize("form", ["float", "stored", "refused"])
def test_what_only_is_stored_in_low_precision_is_not_planned(form):
    found = audit([site("a", form=form)], [kernel("int8", "a")])

    assert found.planned_macs == 0
    assert math.isnan(found.executed_share)
    assert found.to_json()["executed_low_precision_mac_share"] is None


def test_products_of_attention_have_no_weights():
    assert audit([site("a.qk", weights=False)], [kernel("int8", "a.qk")]).executed_share == 1


def test_products_of_attention_are_no_part_of_the_planned_share_but_must_be_executed():
    found = audit(
        [site("a", 100), site("a.qk", 300, weights=False)],
        [kernel("int8", "a"), kernel("float32", "a.qk")],
    )

    assert found.planned_share == 1
    assert found.executed_share == pytest.approx(0.25)


def test_a_matmul_by_a_stored_matrix_has_weights_and_one_of_two_activations_has_none():
    found = audit(
        [site("a", 100, op="matmul"), site("a.matmul", 300, op="matmul", weights=False)],
        [kernel("int8", "a", "a.matmul")],
    )

    assert (found.total_macs, found.planned_macs, found.products_macs) == (100, 100, 300)
    assert found.planned_share == 1


def test_a_convolution_whose_weight_is_computed_counts_among_those_with_weights():
    found = audit([site("a", op="conv2d", weights=False)], [kernel("int8", "a")])

    assert (found.total_macs, found.products_macs) == (100, 0)


def test_components_are_added_up():
    one = audit([site("a", 300)], [kernel("int8", "a")])
    other = audit([site("b", 100)], [kernel("float32", "b")])
    found = audit_to_json((one, other))

    assert found["executed_low_precision_mac_share"] == pytest.approx(0.75)
    assert found["planned_low_precision_mac_share"] == 1
    assert [each["key"] for each in found["downgraded"]] == ["b"]
    assert "multiply-accumulates" in found["of"]
    assert audit_to_json(()) is None
