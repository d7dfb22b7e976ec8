"""The operations of a small UNet with attention, and what a plan decides for each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qdx.exporter.plan.importers import plan_of_data
from qdx.exporter.plan.schema.selection import decide
from tests.support.smallest import build_smallest_text_to_image

MADE = Path(__file__).parent / "made"


def made(name):
    """A file that a tool wrote."""
    return json.loads((MADE / name).read_text())


def imported(data, **arguments):
    """A plan of plain data."""
    return plan_of_data(data, source="f.json", **arguments)


def verdicts(one):
    """What became of each part: verdicts by place."""
    return {finding.place: finding.verdict for finding in one.findings}


def decided(one, sites, component="unet"):
    """What a plan asks of each operation: the scheme of weights and that of inputs, None where it stays float."""
    found = {}
    for site, decision in zip(sites, decide(one.plan, component, sites, "denoiser"), strict=True):
        weights = inputs = None
        if decision.weights is not None:
            asked = one.plan.rules[decision.weights].asked_weights
            weights = asked if asked.quantized else None
        if decision.inputs and decision.inputs[0] is not None:
            asked = one.plan.rules[decision.inputs[0]].asked_inputs
            inputs = asked if asked.quantized else None
        found[site.key] = (weights, inputs)
    return found


@pytest.fixture(scope="session")
def operations(tmp_path_factory):
    """Those of the UNet from which `make_fixtures` took what tools do to it."""
    from qdx.importing.plans import operations_of

    model = build_smallest_text_to_image(tmp_path_factory.mktemp("importers") / "model")
    operations, _ = operations_of(model, {"prompt": "a fox", "num_inference_steps": 1})
    return operations


@pytest.fixture(scope="session")
def unet(operations):
    return operations.sites["unet.forward"]
