"""Pipelines that draw from the global state do the same whenever they run, and leave it as it was."""

from __future__ import annotations

import pytest
import torch

from qdx.exporter.capture.arguments import complete_call
from qdx.exporter.capture.calls import LiveCall
from qdx.exporter.capture.dry_run import dry_run
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.randomness import seeded, without_generators
from qdx.exporter.capture.skeleton import build_skeleton
from tests.support import tiny


def drawn(seed):
    with seeded(seed):
        return torch.rand(3).tolist()


def test_a_seed_decides_what_is_drawn():
    assert drawn(1) == drawn(1) != drawn(2)


def test_the_state_is_afterwards_as_it_was():
    before = torch.random.get_rng_state()
    drawn(1)
    with pytest.raises(ValueError, match="inside"), seeded(1):
        raise ValueError("inside")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_dry_run_is_seeded(tmp_path, monkeypatch):
    skeleton = build_skeleton(read_pipeline_folder(tiny.build("ddpm", tmp_path / "model")))
    call = complete_call(skeleton.pipeline, {})
    draws = []
    original = type(skeleton.pipeline).__call__

    def drawing(self, **arguments):
        draws.append(float(torch.rand(())))
        return original(self, **arguments)

    monkeypatch.setattr(type(skeleton.pipeline), "__call__", drawing)
    for state in (1, 2):
        torch.manual_seed(state)
        dry_run(skeleton, call)
    assert draws[0] == draws[1]


def test_a_dry_run_gives_a_generator_to_a_pipeline_that_needs_one(tmp_path, monkeypatch):
    skeleton = build_skeleton(read_pipeline_folder(tiny.build("ddpm", tmp_path / "model")))
    call = complete_call(skeleton.pipeline, {})
    original = type(skeleton.pipeline).__call__
    given = []

    def needing(self, generator=None, **arguments):
        given.append(generator if isinstance(generator, torch.Generator) else generator[0])
        return original(self, generator=generator, **arguments)

    monkeypatch.setattr(type(skeleton.pipeline), "__call__", needing)
    assert dry_run(skeleton, call)
    assert given[0].initial_seed() == 0


def test_a_component_that_is_given_a_generator_is_recorded_without():
    x = torch.zeros(2)
    arguments = {"x": x, "generator": torch.Generator(), "generators": [torch.Generator()]}
    call = without_generators(LiveCall("vae", "decode", torch.zeros_like, arguments))
    assert call.arguments["x"] is x
    assert call.leaves == {"x": x, "generator": None, "generators.0": None}
