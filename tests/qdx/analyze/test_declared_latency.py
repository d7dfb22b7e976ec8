from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from qdx.analyze.declared_latency import declared_latency
from qdx.analyze.latency_table import LatencyTable
from qdx.analyze.stored_bytes import StoredBytes
from qdx.backends.registry import get_backend
from qdx.exporter.errors import UsageError
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.plan.resolve.resolution import FloatTypes, SiteResolution
from qdx.exporter.plan.schema.scheme import Inputs, LowRank, Weights
from qdx.targets.model import DeviceSpeed
from tests.support.tracing import graph_of

WEIGHTS = Weights(dtype="int8", granularity="channel", symmetric=True)
INPUTS = Inputs(dtype="int8", symmetric=True)
FLOAT = Weights(dtype="float16", granularity="channel", symmetric=True)
TOKENS, CHANNELS, OUTPUTS = 64, 32, 128
MACS = TOKENS * CHANNELS * OUTPUTS


RANK = 4
BRANCHED = Weights(
    dtype="int8", granularity="channel", symmetric=True,
    low_rank=LowRank(rank=RANK, dtype="float16"),
)  # fmt: skip


def table(device: DeviceSpeed) -> LatencyTable:
    graph, _ = graph_of(
        lambda: nn.Linear(CHANNELS, OUTPUTS, bias=False), {"input": torch.zeros(TOKENS, CHANNELS)}
    )
    (site,) = find_sites(graph)
    floats = SiteResolution(
        graph.where, site, FLOAT, None, "", "", FLOAT, None, "float16", "native", ""
    )
    both = replace(
        floats, weights=WEIGHTS, inputs=INPUTS, stored_dtype="int8", scale_dtype="float16"
    )
    stored = StoredBytes(graph, FloatTypes("float16"), "float32", get_backend("coreml"))
    return declared_latency(
        graph,
        [site],
        {0: [floats], 1: [both], 2: [replace(both, weights=BRANCHED)]},
        stored,
        device,
        floats="float16",
    )


def test_an_operation_takes_its_arithmetic_where_memory_is_fast():
    found = table(
        DeviceSpeed(device="A device", macs_per_s={"float16": 1e9, "int8": 4e9}, bytes_per_s=1e15)
    )
    (key,) = found.kind_of

    assert found.site_ms(key, 0) == pytest.approx(1e3 * MACS / 1e9)
    assert found.site_ms(key, 1) == pytest.approx(1e3 * MACS / 4e9)


def test_it_takes_its_bytes_where_arithmetic_is_fast_and_what_an_operation_costs_beside():
    found = table(
        DeviceSpeed(
            device="A device",
            macs_per_s={"float16": 1e15, "int8": 1e15},
            bytes_per_s=1e6,
            operation_s=0.5,
        )
    )
    (key,) = found.kind_of
    weights, inputs, outputs = CHANNELS * OUTPUTS, TOKENS * CHANNELS, TOKENS * OUTPUTS

    assert found.site_ms(key, 0) == pytest.approx(
        500 + 1e3 * 2 * (weights + inputs + outputs) / 1e6, rel=0.01
    )
    assert found.site_ms(key, 1) == pytest.approx(
        500 + 1e3 * (weights + 2 * OUTPUTS + inputs + 2 * outputs) / 1e6, rel=0.01
    )


def test_a_low_rank_branch_adds_its_products_its_weights_and_its_sum():
    arithmetic = table(
        DeviceSpeed(device="A device", macs_per_s={"float16": 1e9, "int8": 4e9}, bytes_per_s=1e15)
    )
    memory = table(
        DeviceSpeed(
            device="A device",
            macs_per_s={"float16": 1e15, "int8": 1e15},
            bytes_per_s=1e6,
            operation_s=0.5,
        )
    )
    (key,) = memory.kind_of
    weights = RANK * (CHANNELS + OUTPUTS)
    passed = TOKENS * (CHANNELS + 2 * RANK + OUTPUTS) + 3 * TOKENS * OUTPUTS

    assert arithmetic.site_ms(key, 2) - arithmetic.site_ms(key, 1) == pytest.approx(
        1e3 * TOKENS * weights / 1e9, rel=1e-3
    )
    assert memory.site_ms(key, 2) - memory.site_ms(key, 1) == pytest.approx(
        1500 + 1e3 * 2 * (weights + passed) / 1e6, rel=0.01
    )


def test_the_table_says_that_it_is_declared():
    found = table(
        DeviceSpeed(device="A device", macs_per_s={"float16": 1e9, "int8": 4e9}, bytes_per_s=1e9)
    )

    assert found.source == "declared"
    assert found.machine is None
    assert found.device == "A device"
    assert found.whole == ()


def test_a_type_of_which_nothing_is_declared_is_an_error():
    with pytest.raises(UsageError, match="nothing is said of int8, in which `A device`"):
        table(DeviceSpeed(device="A device", macs_per_s={"float16": 1e9}, bytes_per_s=1e9))
