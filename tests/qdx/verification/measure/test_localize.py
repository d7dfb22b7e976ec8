"""The site at which an error enters is named, on graphs whose faults are known."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from qdx.bundle.recipes import rebuilt
from qdx.exporter.calibrate.weight_cache import WeightCache
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.measure.mixed_run import Pair, Walk
from qdx.exporter.transforms.insert_quantizers import InsertQuantizers
from qdx.exporter.transforms.placement import (
    ActivationQuantization,
    Placement,
    SitePlacement,
    TimestepGroups,
)
from qdx.exporter.transforms.recipe import Recipe
from qdx.source.pipeline import trace_pipeline
from qdx.verification.measure.localize import localize, stage_of
from tests.support.layers import ROOT

INT8, INT4 = WeightQuantization("int8"), WeightQuantization("int4")
INPUT = ActivationQuantization("int8", 0.05, 3)


@pytest.fixture(scope="module")
def graph():
    source = trace_pipeline(ROOT / "samples" / "digits", {"batch_size": 1})
    return WeightCache().attach(source.graph("unet.forward"))


@pytest.fixture(scope="module")
def inputs(graph):
    generator = torch.Generator().manual_seed(0)
    return {
        spec.name: torch.full(spec.shape, 400, dtype=getattr(torch, spec.dtype))
        if spec.name == "timestep"
        else torch.randn(spec.shape, generator=generator)
        for spec in graph.inputs
    }


def weighted(graph):
    return [site for site in find_sites(graph) if site.op in ("conv2d", "linear")]


def recipe_of(graph, place) -> Recipe:
    placement = Placement(graph.where, tuple(place(site) for site in weighted(graph)))
    timestep_input = "timestep" if placement.by_timestep else None
    return Recipe(placement.where, (InsertQuantizers(placement.sites, timestep_input),))


KINDS = {
    "static": lambda site: SitePlacement(site.key, {0: INPUT}, INT8),
    "output": lambda site: SitePlacement(site.key, {0: INPUT}, INT8, replace(INPUT, scale=0.1)),
    "bounds": lambda site: SitePlacement(site.key, {0: replace(INPUT, bounds=(-16, 15))}, INT8),
    "token": lambda site: SitePlacement(
        site.key, {0: replace(INPUT, scale=1.0, zero_point=0, token=True)}, INT8
    ),
    "groups": lambda site: SitePlacement(
        site.key, {0: replace(INPUT, groups=TimestepGroups((500.0,), (1.0, 1.5)))}, INT8
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_sites_as_quantized_are_the_quantized_graph(graph, inputs, kind):
    def place(site):
        # A convolution's tokens are not its last dimension.
        return KINDS["static" if kind == "token" and site.op == "conv2d" else kind](site)

    recipe = recipe_of(graph, place)
    base, quantized = rebuilt(graph, recipe)
    pair = Pair(base, quantized, recipe)
    every = Walk(pair, inputs, pair.sites.keys()).run()
    none = Walk(pair, inputs, frozenset()).run()

    assert torch.equal(every["sample"], run(quantized, inputs)["sample"])
    assert torch.equal(none["sample"], run(graph, inputs)["sample"])
    assert not torch.equal(every["sample"], none["sample"])


def test_first_and_last_convolution_in_four_bits_are_the_two_that_are_named(graph, inputs):
    def place(site):
        return SitePlacement(site.key, weight=INT4 if site.role in ("first", "last") else INT8)

    recipe = recipe_of(graph, place)
    found = localize(*rebuilt(graph, recipe), recipe, inputs)

    assert {site.key for site in found.ranked[:2]} == {"conv_in", "conv_out"}
    assert {site.key for site in found.named} == {"conv_in", "conv_out"}
    assert found.first.key == "conv_in"
    assert found.to_json()["first"] == "conv_in"


@pytest.mark.parametrize("number", [3, 12])
def test_one_scale_off_by_far_is_the_one_that_is_named(graph, inputs, number):
    wrong = weighted(graph)[number].key

    def place(site):
        if site.key != wrong:
            return SitePlacement(site.key, weight=INT8)
        return SitePlacement(site.key, {0: replace(INPUT, scale=0.005)}, INT8)

    recipe = recipe_of(graph, place)
    found = localize(*rebuilt(graph, recipe), recipe, inputs, candidates=4)

    assert found.first.key == wrong
    assert found.ranked[0].share > 0.9
    assert len(found.ranked) == 4


def test_errors_add_up_behind_a_site_and_not_before(graph, inputs):
    (site,) = [site for site in weighted(graph) if site.role == "last"]
    recipe = recipe_of(graph, lambda one: SitePlacement(one.key, weight=INT8))
    found = localize(*rebuilt(graph, recipe), recipe, inputs, candidates=1)
    last = next(one for one in found.sites if one.key == site.key)

    assert found.sites[0].local_sqnr_db == found.sites[0].cumulative_sqnr_db
    assert last.cumulative_sqnr_db < last.local_sqnr_db
    assert found.output_sqnr_db == pytest.approx(last.cumulative_sqnr_db)


class Counting:
    """A place to report to that counts."""

    total = done = None

    def task(self, _name, total=None, *, unit=""):
        self.total, self.done = total, 0
        return nullcontext(self)

    def advance(self, n=1):
        self.done += n


@pytest.mark.parametrize("candidates", [2, 1000])
def test_its_progress_comes_to_the_end_however_few_sites_there_are(graph, inputs, candidates):
    recipe = recipe_of(graph, lambda site: SitePlacement(site.key, weight=INT8))
    few = Placement(graph.where, recipe.placement.sites[:3])
    recipe, progress = Recipe(few.where, (InsertQuantizers(few.sites, None),)), Counting()
    localize(*rebuilt(graph, recipe), recipe, inputs, candidates=candidates, progress=progress)

    assert progress.done == progress.total == min(candidates, 3) + 1


@pytest.mark.parametrize(
    ("quantized", "artifact", "stage"),
    [(30, 29.5, "quantization"), (30, 31, "quantization"), (30, 20, "lowering"),
     (30, float("nan"), "lowering"), (float("nan"), 30, "lowering")],
)  # fmt: skip
def test_lowering_is_blamed_where_it_adds_more_noise_than_quantization(quantized, artifact, stage):
    assert stage_of(quantized, artifact) == stage
