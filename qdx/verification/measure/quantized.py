"""The quantized model of a bundle in PyTorch: its graphs traced again, and quantized by the bundle's own recipes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from qdx.backends.capabilities import SwitchesOptimizationsOff
from qdx.backends.registry import get_backend
from qdx.bundle.reader import artifact_path, method_record
from qdx.bundle.recipes import rebuilt, recipes_of
from qdx.bundle.resolution import restored
from qdx.bundle.target_options import checked_options
from qdx.exporter.calibrate.weight_cache import WeightCache, budget_bytes
from qdx.exporter.capture.recorded_call import restore_call
from qdx.exporter.cost.arithmetic import macs_of_call
from qdx.exporter.devices import CPU, is_cpu
from qdx.exporter.errors import InvalidBundle, quoted
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.measure.metrics import or_least
from qdx.exporter.plan.resolve.resolution import Resolution
from qdx.exporter.progress import SILENT
from qdx.runtime.adapted_runner import without_adapters
from qdx.runtime.graph_runner import GraphRunner
from qdx.runtime.methods import TargetMethod
from qdx.source.adapted import identity_of
from qdx.source.pipeline import trace_pipeline
from qdx.source.planned import in_float16, trace_graphs
from qdx.verification.measure.answers import Answers, graph_identity
from qdx.verification.measure.computed import ComputedGraph, quantizer_shapes
from qdx.verification.measure.localize import Answered, Localization, localize
from qdx.verification.measure.rungs import QUANTIZED, UNOPTIMIZED, Rung
from qdx.verification.measure.selection import FEW
from qdx.verification.measure.stored_graph import StoredGraph, StoredModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from qdx.backends.contract import Runner
    from qdx.bundle.reader import Bundle
    from qdx.exporter.capture.model import Model
    from qdx.exporter.formats.memory import Memory
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan, SiteResolution
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.exporter.progress import Progress
    from qdx.exporter.transforms.recipe import Recipe
    from qdx.runtime.reference import RecordedMethod
    from qdx.runtime.tensor_folder import TensorFolder
    from qdx.verification.measure.components import MethodResult

__all__ = [
    "QuantizedModel",
    "answers_of",
    "has_unoptimized",
    "localize_worst",
    "middle_rungs",
    "quantized_model",
    "quantized_wheres",
    "stored_graphs",
]


@dataclass(frozen=True)
class QuantizedModel:
    """A bundle's quantized graphs.

    Attributes:
        resolved: What the plan became of every site in the graphs of the bundle.
        recipes: By `component.method`, of the graphs that are quantized.
        prepared: Their float graphs in the form that is quantized.
        quantized: The quantized graphs.
        graphs: All float graphs of the bundle, as they were traced.
    """

    resolved: ResolvedPlan
    recipes: Mapping[str, Recipe] = field(repr=False)
    prepared: Mapping[str, Graph] = field(repr=False)
    quantized: Mapping[str, Graph] = field(repr=False)
    graphs: Mapping[str, Graph] = field(repr=False)

    @cached_property
    def macs(self) -> dict[str, int]:
        """Multiply-accumulates of one call of each graph, at the sizes of the export's call."""
        return {where: macs_of_call(graph) for where, graph in self.graphs.items()}


def has_unoptimized(bundle: Bundle, where: str) -> bool:
    """Whether a method's runtime can leave its optimizations out; what it does not execute it does not optimize."""
    return _unoptimized_options(bundle, where) is not None


def _unoptimized_options(bundle: Bundle, where: str) -> dict[str, str] | None:
    """Options that turn the runtime's own optimizations off; None where it has none here, or cannot."""
    backend = get_backend(bundle.manifest.target.runtime)
    if not isinstance(backend, SwitchesOptimizationsOff):
        return None
    return backend.unoptimized_options(artifact_path(bundle, where))


def quantized_wheres(bundle: Bundle) -> frozenset[str]:
    """`component.method` of every graph in a bundle that has a recipe of quantization."""
    return frozenset(recipes_of(bundle))


def quantized_model(
    bundle: Bundle, plan: Plan, model: Model, *, progress: Progress = SILENT
) -> QuantizedModel:
    """Traces a bundle's graphs as its export did, and quantizes them as its recipes say.

    Args:
        bundle: A quantized bundle.
        plan: Its plan.
        model: The pipeline that it was made from.
        progress: Shows the steps.

    Raises:
        InvalidBundle: A recipe is damaged or that of another graph, or an operation is not in the manifest.
        TargetRefusal, UsageError: As for the export.
    """
    manifest = bundle.manifest
    source = trace_pipeline(
        model,
        restore_call(manifest.call),
        components=list(manifest.components),
        shapes=manifest.shapes,
        opens_files=False,
        progress=progress,
    )
    with progress.task("quantizing the graphs in PyTorch"):
        components = [Resolution(**dict(record)) for record in manifest.resolution]
        profile = manifest.target.profile
        graphs, found_sites = trace_graphs(source, profile, in_float16(components))
        resolved = restored(manifest.resolved, plan, manifest.target.name, components, found_sites)
        recipes = recipes_of(bundle)
        cache = WeightCache()
        floats: dict[str, Graph] = {}
        quantized: dict[str, Graph] = {}
        for where, recipe in recipes.items():
            if where not in graphs:
                raise InvalidBundle(
                    f"{quoted(where)}: has a recipe of quantization, and the call does not use it",
                    hint="export again",
                )
            graph = graphs[where]
            floats[where], made = rebuilt(graph, recipe)
            quantized[where] = cache.attach(made)
    sites = {where: _present(found, floats.get(where)) for where, found in resolved.sites.items()}
    resolved = replace(resolved, sites=sites)
    return QuantizedModel(resolved, recipes, floats, quantized, graphs)


def _present(sites: tuple[SiteResolution, ...], graph: Graph | None) -> tuple[SiteResolution, ...]:
    """Without the sites that a table of the time embedding took the place of."""
    if graph is None:
        return sites
    keys = {site.key for site in find_sites(graph)}
    return tuple(site for site in sites if site.key in keys)


def answers_of(
    model: QuantizedModel,
    bundle: Bundle,
    device: torch.device,
    *,
    scratch: TensorFolder,
    memory: Memory | None = None,
) -> Answers:
    """What takes the answers of a bundle's quantized graphs.

    Args:
        model: The graphs.
        bundle: The bundle.
        device: What computes.
        scratch: Takes answers for this verification.
        memory: Takes them for others; None keeps none.
    """
    identities = {
        where: graph_identity(graph, model.recipes[where], identity_of(bundle.manifest), device)
        for where, graph in model.quantized.items()
    }
    return Answers(identities, scratch, memory)


def stored_graphs(model: QuantizedModel, answers: Answers) -> dict[str, StoredGraph]:
    """The quantized graphs as a stored reference has them, without what was kept of their calls.

    Args:
        model: The graphs.
        answers: What takes their answers.
    """
    found = {}
    for where, graph in model.quantized.items():
        computed = ComputedGraph(graph)
        found[where] = StoredGraph(
            where=where,
            macs=model.macs[where],
            identity=answers.identities[where],
            inputs=graph.inputs,
            sources=computed.sources,
            places=computed.places,
            shapes=quantizer_shapes(graph),
            calls={},
        )
    return found


def middle_rungs(
    bundle: Bundle,
    methods: Mapping[str, TargetMethod],
    model: QuantizedModel | StoredModel,
    answers: Answers,
    device: torch.device = CPU,
    *,
    few: Collection[str] = (),
) -> dict[str, tuple[Rung, ...]]:
    """The rungs between float PyTorch and the shipped artifact, by `component.method`.

    Args:
        bundle: The bundle.
        methods: Its methods, opened on the target.
        model: Its quantized graphs, or what was stored of them.
        answers: Remembers what these answer.
        device: Where they compute.
        few: `component.method` of large ones: their quantized graphs compute the few calls that lockstep has computed,
            and the runtime without its optimizations the first.
    """
    manifest = bundle.manifest
    found: dict[str, tuple[Rung, ...]] = {}
    quantized: Mapping[str, Graph | StoredGraph] = model.quantized
    for where, graph in quantized.items():
        if where not in methods:
            continue
        in_pytorch = as_method(methods[where], graph)
        rung = Rung(QUANTIZED, in_pytorch, most=FEW if where in few else None)
        if isinstance(graph, Graph) and not is_cpu(
            device
        ):  # what it keeps on the GPU makes room for the next
            late = _LateMethod(in_pytorch, partial(_runner_on, graph, device))
            rung = replace(rung, run=late, open=late.open, close=late.close)
        rungs = [answers.remembered(rung, in_pytorch)]
        off = _unoptimized_options(bundle, where)
        if off is not None:
            options = {**checked_options(manifest), **off}
            opens = partial(_opened, bundle, where, options)
            late = _LateMethod(methods[where], opens)
            # Without its optimizations a runtime is slower than PyTorch.
            most = 1 if where in few else FEW
            rungs.append(Rung(UNOPTIMIZED, late, late.open, late.close, most=most))
        found[where] = tuple(rungs)
    return found


def _opened(bundle: Bundle, where: str, options: Mapping[str, str]) -> Runner:
    """An artifact with these options, and without adapters where it takes some."""
    backend = get_backend(bundle.manifest.target.runtime)
    runner = backend.open(artifact_path(bundle, where), options)
    return without_adapters(runner, method_record(bundle, where).adapter_inputs)


def _runner_on(graph: Graph, device: torch.device) -> GraphRunner:
    """A graph on a GPU, whose weights stay there as far as they fit."""
    cache = WeightCache(budget_bytes(device, [graph]), device)
    return GraphRunner(cache.attach(graph), device)


class _LateMethod:
    """A method on a runner of its own, which is there between opening and closing.

    Args:
        method: What it is like.
        opened: Opens the runner.
    """

    def __init__(self, method: TargetMethod, opened: Callable[[], Runner]) -> None:
        self._method = method
        self._opened = opened
        self._open: TargetMethod | None = None

    def open(self) -> None:
        """Opens the runner."""
        self._open = replace(self._method, runner=self._opened())

    def close(self) -> None:
        """Lets go of it."""
        self._open = None

    def __call__(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Runs the method."""
        assert self._open is not None, "not open"
        return self._open(tensors)


def localize_worst(
    model: QuantizedModel,
    methods: Mapping[str, TargetMethod],
    records: Mapping[str, RecordedMethod],
    results: Sequence[MethodResult],
    progress: Progress,
) -> Localization | None:
    """Localizes the error of the worst call of all quantized methods; None where none was replayed."""
    found = [
        (result, call)
        for result in results
        for call in result.calls
        if result.where in model.quantized and model.recipes[result.where].placement.sites
    ]
    if not found:
        return None
    result, call = min(found, key=lambda pair: or_least(pair[1].sqnr_db))
    where = result.where
    recorded = next(one for one in records[where].calls if one.index == call.index)
    graph = model.quantized[where]
    return localize(
        WeightCache().attach(model.prepared[where]),
        graph,
        model.recipes[where],
        as_method(methods[where], graph).adapted(recorded.inputs),
        index=call.index,
        answered=Answered(call.sqnr_db, frozenset(recorded.outputs)),
        progress=progress,
    )


def as_method(method: TargetMethod, graph: Graph | StoredGraph) -> TargetMethod:
    """A target's method computed by a graph in PyTorch; it adapts the pipeline's tensors likewise.

    A stored graph refuses to compute: it is asked for nothing but what it has.
    """
    inputs = {spec.name: spec for spec in graph.inputs}
    return replace(
        method,
        inputs=tuple(
            port.model_copy(
                update={"name": port.argument, "dtype": inputs[port.argument].dtype,
                        "shape": inputs[port.argument].shape, "form": None}
            )
            for port in method.inputs
        ),
        outputs=tuple(port.model_copy(update={"name": port.field}) for port in method.outputs),
        runner=graph if isinstance(graph, StoredGraph) else GraphRunner(graph),
    )  # fmt: skip
