"""Audits of what was compiled and not run: the ways count, nothing is said to have been executed."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from qdx.backends.contract import KernelExecution
from qdx.exporter.errors import InvalidBundle
from qdx.verification.measure.audit import audit_result, audit_to_json
from qdx.verification.measure.compiled import check_accounted
from tests.support.audited_sites import site
from tests.support.compiled_audit import engine

WAYS = {"a": "native", "b": "weights_in_product", "c": "weights_in_memory", "d": "float"}


def audit(sites, built):
    engines = {"unet.forward": built}
    executions = {"unet.forward": built.executions}
    return audit_result("unet", {"unet.forward": sites}, executions, engines)


def test_the_share_is_of_what_was_compiled_for_low_precision_and_nothing_was_executed():
    found = audit([site("a", 300), site("b", 50), site("c", 40), site("d", 10)], engine(WAYS))

    assert found.compiled_share == pytest.approx(0.75)
    assert math.isnan(found.executed_share)
    assert found.way_macs == {
        "native": 300,
        "weights_in_product": 50,
        "weights_in_memory": 40,
        "float": 10,
    }
    assert {one.key: one.why for one in found.downgraded} == {
        "b": "compiled as `gemm` in float16: weights dequantized inside the product",
        "c": "compiled as `gemm` in float16: dequantized to memory",
        "d": "compiled as `gemm` in float16",
    }


def test_the_ways_of_weights_alone_are_told_though_no_low_precision_is_planned():
    found = audit([site("a", 300), site("b", 100, "stored")], engine(WAYS))

    assert found.compiled_share == 1
    assert found.way_macs["weights_in_product"] == 100


def test_a_sum_that_overflows_is_not_as_planned():
    found = audit(
        [site("a", 300), site("x", 100)], engine({**WAYS, "x": "native"}, overflowing=("x",))
    )

    assert found.compiled_share == pytest.approx(0.75)
    assert "overflows beyond 65504" in found.downgraded[0].why
    assert found.to_json()["compiled"]["engines"]["unet.forward"]["overflowing"] == ["x"]


def test_a_graph_without_an_engine_counts_as_not_compiled():
    sites = {"unet.forward": [site("a", 300)], "unet.other": [site("b", 100)]}
    built = engine({"a": "native"})
    executions = {
        "unet.forward": built.executions,
        "unet.other": [KernelExecution("b", "MatMul", "int8", ("b",))],
    }
    found = audit_result("unet", sites, executions, {"unet.forward": built})

    assert found.compiled_share == pytest.approx(0.75)
    assert found.downgraded[0].why == "no engine was built of its graph"


def test_an_engine_of_another_component_changes_nothing():
    sites = {"unet.forward": [site("a", 300)]}
    kernels = {"unet.forward": [KernelExecution("a", "kernel", "int8", ("a",))]}
    found = audit_result("unet", sites, kernels, {"vae.decode": engine(WAYS)})

    assert found.executed_share == 1
    assert found.engines == {}


def test_json_has_shares_ways_and_memory():
    found = audit([site("a", 300), site("b", 100)], engine(WAYS))
    data = audit_to_json([found])

    assert data["executed_low_precision_mac_share"] is None
    assert data["compiled_low_precision_mac_share"] == pytest.approx(0.75)
    one = data["components"]["unet"]
    assert one["macs"] == {
        "all": 400,
        "planned": 400,
        "planned_products": 0,
        "executed": 0,
        "compiled": 300,
    }
    assert one["parts"][0]["ways"] == {"native": 300, "weights_in_product": 100}
    built = one["compiled"]["engines"]["unet.forward"]
    assert (built["attentions_fused"], built["attentions"]) == (1, 2)
    assert built["attentions_apart"] == [{"name": "attn2", "kernel": "kgen MaxrSubExpSumDivMul"}]
    assert built["weights_bytes"] == 2 << 20


def test_json_of_what_was_executed_has_none_of_it():
    kernels = {"unet.forward": [KernelExecution("a", "kernel", "int8", ("a",))]}
    data = audit_to_json([audit_result("unet", {"unet.forward": [site("a")]}, kernels)])

    assert "compiled_low_precision_mac_share" not in data
    one = data["components"]["unet"]
    assert not {"compiled", "compiled_low_precision_mac_share"} & one.keys()
    assert "compiled" not in one["macs"]


def test_a_quantized_operation_that_the_log_leaves_out_is_an_error():
    sites = [site("a"), site("b"), site("float", form="float", quantized=False)]
    check_accounted("unet.forward", sites, engine(WAYS))

    with pytest.raises(InvalidBundle, match=r"does not account for 1 operations .*`missing`"):
        check_accounted("unet.forward", [*sites, site("missing")], engine(WAYS))


def test_of_several_layers_of_one_site_the_worst_way_counts():
    built = engine({"a": "native"})
    more = replace(built.executions[0], compiled="weights_in_memory")
    both = replace(built, executions=(*built.executions, more))

    assert both.ways == {"a": "weights_in_memory"}
    assert SimpleNamespace(**both.facts()).ways["native"] == 0
