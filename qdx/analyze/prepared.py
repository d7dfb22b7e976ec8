"""The quantized graphs of options: made by the very machinery that exports use, an option at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from qdx.analyze.noise import Quantized
from qdx.analyze.offerings import plan_asking
from qdx.cache.facts import tensor_digest
from qdx.calibration.record import record_ranges
from qdx.compile.recipe import begin_recipe
from qdx.exporter.calibrate.ranges import Ranges
from qdx.exporter.calibrate.weight_cache import WeightCache
from qdx.exporter.graph.ir.weights import LazyWeights
from qdx.exporter.measure.mixed_run import Pair
from qdx.exporter.measure.reruns import FloatGraph
from qdx.exporter.strict_json import dump_json
from qdx.exporter.transforms.recipe import prepared, quantized_graph, unbranched

if TYPE_CHECKING:
    from qdx.analyze.learned import Learned
    from qdx.analyze.offerings import Offering
    from qdx.backends.contract import Backend
    from qdx.calibration.kept import Kept
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.weights import LazyWeight
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.exporter.progress import Progress
    from qdx.exporter.transforms.recipe import Recipe
    from qdx.source.pipeline import TracedPipeline
    from qdx.source.planned import PlannedGraphs
    from qdx.targets.profile import TargetProfile

__all__ = ["Prepared", "prepare", "ranges_of"]

CACHE_BYTES: Final = 2**30


@dataclass(frozen=True)
class Prepared:
    """Quantized graphs, and the memory that their weights share.

    Attributes:
        graphs: By graph and option.
        traced: The graphs as they were traced.
        cache: The memory.
    """

    graphs: Mapping[tuple[str, int], Quantized] = field(repr=False)
    traced: Mapping[str, Graph] = field(repr=False)
    cache: WeightCache = field(repr=False)

    def with_weights(self, graph: Graph, known: Mapping[str, LazyWeight]) -> Graph:
        """A graph with weights that another one has already, by name; those that it has not are kept when they are read."""
        weights = {name: known.get(name, weight) for name, weight in graph.weights.items()}
        lazy = LazyWeights(weights, aliases=graph.weights.aliases)
        return replace(graph, weights=lazy)

    def warm(self, progress: Progress) -> None:
        """Quantizes weights once, for all processes that are forked later; as many as the memory for them holds."""
        with progress.task("quantizing weights", len(self.graphs), unit="options") as task:
            for quantized in self.graphs.values():
                for weight in quantized.pair.quantized.weights.values():
                    if weight.quantized is not None:
                        weight.load()
                task.advance(1)


def ranges_of(
    source: TracedPipeline,
    planned: PlannedGraphs,
    profile: TargetProfile,
    offered: Sequence[Offering],
    *,
    prompts: Sequence[str] | None,
    workers: int | None,
    kept: Kept | None,
    progress: Progress,
) -> Ranges | None:
    """The ranges that the options need, recorded once for all of them; None where they need none."""
    plan = _plan_observing(planned.resolved.plan, offered)
    if plan is None:
        return None
    return record_ranges(
        source,
        plan,
        source.call,
        prompts=prompts,
        planned=planned,
        choices=profile.choices,
        workers=workers,
        kept=kept,
        progress=progress,
    )


def _plan_observing(base: Plan, offered: Sequence[Offering]) -> Plan | None:
    """A plan that needs everything which any option needs: what is observed does not depend on types."""
    changes = base.options.smoothing is not None or base.options.bias_correction
    asking: dict[bool, tuple[Offering, set[str], set[str]]] = {}
    for one in offered:
        inputs = one.option.inputs
        if not (base.options.bias_correction or (inputs and (inputs.calibrated or changes))):
            continue
        _, components, ops = asking.setdefault(one.option.weights is None, (one, set(), set()))
        components.update(where.partition(".")[0] for where, _ in one.sites)
        ops.update(offer.resolution.site.op for offer in one.sites.values())
    plan = None
    for first, components, ops in asking.values():
        found = plan_asking(base, first.option, sorted(components), sorted(ops))
        if plan is not None:
            rules = (*plan.rules, found.rules[-1].model_copy(update={"id": "products"}))
            found = found.model_copy(update={"rules": rules})
        plan = found
    return plan


def prepare(
    source: TracedPipeline,
    planned: PlannedGraphs,
    offered: Iterable[Offering],
    ranges: Ranges | None,
    backend: Backend,
    wheres: Sequence[str],
    learned: Learned,
) -> Prepared:
    """Makes the quantized graph of every option of every graph that has operations which take it.

    Low-rank branches are part of what quantizes: options with other branches, or none, have the same float graph.

    Args:
        source: The pipeline.
        planned: Its graphs.
        offered: The options.
        ranges: Of activations; None where no option needs any.
        backend: The target's.
        wheres: The graphs.
        learned: What options learn from calls.
    """
    cache = WeightCache(CACHE_BYTES)
    floats: dict[tuple[str, str], FloatGraph] = {}
    found: dict[tuple[str, int], Quantized] = {}
    traced: dict[str, Graph] = {}
    for where in wheres:
        component = where.partition(".")[0]
        # Pages of files: they are read again and again, and processes share them.
        graph = replace(planned.graphs[where], weights=source.mapped_weights[component])
        traced[where] = graph
        begun = {}
        for one in offered:
            if any(place == where for place, _ in one.sites):
                # A plan smooths where it quantizes inputs.
                known = ranges if one.option.inputs is not None else _unsmoothed(ranges)
                begun[one.option.id] = begin_recipe(graph, one.resolved, known, backend)
        learned.learn(where, list(begun.values()))
        for option, begin in begun.items():
            recipe = begin.finish(learned)
            assert recipe is not None, "an option quantizes something"
            family = _family(where, recipe)
            if (where, family) not in floats:
                base = prepared(graph, unbranched(recipe))
                floats[where, family] = FloatGraph(cache.attach(base))
            shared = floats[where, family]
            quantized = cache.attach(quantized_graph(begin.graph, recipe))
            pair = Pair(shared.graph, quantized, recipe)
            found[where, option] = Quantized(shared, pair, recipe, family)
    return Prepared(found, traced, cache)


def _unsmoothed(ranges: Ranges | None) -> Ranges | None:
    """Ranges without factors, by which nothing is smoothed."""
    if ranges is None:
        return None
    graphs = {where: replace(graph, factors={}) for where, graph in ranges.graphs.items()}
    return Ranges(graphs, ranges.provenance)


def _family(where: str, recipe: Recipe) -> str:
    """Tells the float graphs that recipes prepare from each other."""
    digest = hashlib.sha256(where.encode())
    for one in unbranched(recipe).transforms:
        if one.prepares:
            digest.update(dump_json({"kind": one.kind, "to": one.to_json()}))
            for name, tensor in sorted(one.tensors().items()):
                digest.update(f"{name} {tensor_digest(tensor)};".encode())
    return digest.hexdigest()
