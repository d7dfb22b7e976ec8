"""A user is told where a bundle's 8-bit sums saturate on this processor."""

from __future__ import annotations

import pytest

from qdx.backends.onnxruntime.backend import OnnxRuntimeBackend
from qdx.bundle import read_bundle
from qdx.runtime.caution import caution_of
from tests.support.quantizing import WEIGHTS, export, plan

INPUTS = {"inputs": {"dtype": "int8"}}
SCHEMES = {
    "eight bits": {**WEIGHTS, **INPUTS},
    "seven bits": {"weights": {"dtype": "int8", "reduce_range": True}, **INPUTS},
    "weights alone": WEIGHTS,
}


@pytest.fixture(scope="module")
def bundles(smallest, tmp_path_factory):
    found = {}
    for name, scheme in SCHEMES.items():
        folder = tmp_path_factory.mktemp("bundle")
        export(smallest, folder, plan(scheme), "onnxruntime")
        found[name] = read_bundle(folder / "onnxruntime")
    return found


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("saturates", [True, False])
def test_a_caution_is_of_eight_bits_on_such_a_processor(bundles, monkeypatch, name, saturates):
    monkeypatch.setattr(OnnxRuntimeBackend, "saturates", lambda _: saturates)

    caution = caution_of(bundles[name])

    assert bool(caution) == (saturates and name == "eight bits")
    assert not caution or "reduce_range" in caution
