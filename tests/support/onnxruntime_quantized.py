"""Small quantized graphs: placed by the target's rules with given ranges, inserted and lowered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from qdx.backends.onnx.session import OnnxRuntimeRunner
from qdx.backends.onnxruntime.audit import audit
from qdx.backends.onnxruntime.lower import lower
from qdx.backends.onnxruntime.place import place
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.ir.site import Site
from qdx.exporter.graph.rewrites.open_attention import open_attention
from qdx.exporter.plan.resolve.feasibility import Support
from qdx.exporter.plan.resolve.resolution import Resolution, ResolvedPlan, SiteResolution
from qdx.exporter.plan.schema.gates import ComponentGates, Gates, PipelineGates
from qdx.exporter.plan.schema.scheme import Inputs, Weights
from qdx.exporter.transforms.insert import insert
from qdx.exporter.transforms.placement import Placement
from qdx.targets.profile import load_target
from tests.support.processor import SEVEN_BITS

OPTIONS = load_target("onnxruntime").options
GATES = Gates(
    component=ComponentGates(sqnr_db_min=0), pipeline=PipelineGates(psnr_db_min=0, ssim_min=0)
)
W8 = Weights(dtype="int8", reduce_range=SEVEN_BITS)
A8 = Inputs(dtype="uint8", symmetric=False)


class FixedRanges:
    """Every activation in the same range; with groups, each later one in half of it."""

    def __init__(self, low: float = -3.5, high: float = 4.0, boundaries: tuple[float, ...] = ()):
        self._ends = low, high
        self._boundaries = boundaries

    def statistics(self, where: str, key: str, port: str) -> Any:
        del where, key
        low, high = (0.0, 1.0) if port == "probs" else self._ends

        def value_range(
            observer: str, *, groups: Any = None, **settings: Any
        ) -> tuple[float, float]:
            del observer, settings
            shrink = 0.5 ** min(groups) if groups else 1.0
            return low * shrink, high * shrink

        return SimpleNamespace(range=value_range)

    def groups(self, where: str) -> tuple[float, ...]:
        del where
        return self._boundaries


@dataclass(frozen=True)
class Lowered:
    """A quantized graph and its artifact."""

    graph: Graph
    folder: Path
    placement: Placement

    def reference(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return next(iter(run(self.graph, inputs).values()))

    def run(self, inputs: Mapping[str, torch.Tensor], **options: str) -> np.ndarray:
        runner = OnnxRuntimeRunner(self.folder / "model.onnx", {**OPTIONS, **options}, threads=1)
        return next(iter(runner({k: v.numpy() for k, v in inputs.items()}).values()))

    def kernels(self, **options: str) -> dict[str, tuple[str, str]]:
        """Kind and precision by site."""
        executed = audit(self.folder / "model.onnx", {**OPTIONS, **options}, threads=1)
        return {key: (each.kind, each.precision) for each in executed for key in each.sites}

    def executed(self, **options: str) -> list[str]:
        """Kinds of everything that runs."""
        executed = audit(self.folder / "model.onnx", {**OPTIONS, **options}, threads=1)
        return [each.kind for each in executed]


Wants = Callable[[Site], tuple[Weights | None, Any]]


def resolved(graph: Graph, wants: Wants) -> ResolvedPlan:
    found = []
    for site in sites(graph):
        weights, inputs = wants(site)
        asked = inputs if isinstance(inputs, Inputs | None) else inputs[0][1]
        form: Support = "native" if weights or inputs else "float"
        found.append(
            SiteResolution(
                graph.where,
                site,
                weights,
                asked,
                "",
                "",
                weights,
                inputs,
                "",
                form,
                "",
            )
        )
    component = Resolution(graph.component, "float32", "", "float32", "float32", "")
    return ResolvedPlan(
        SimpleNamespace(),  # type: ignore[arg-type]
        "onnxruntime",
        (component,),
        GATES,
        sites={graph.where: tuple(found)},
    )


def lowered(
    graph: Graph,
    folder: Path,
    wants: Wants,
    *,
    ranges: FixedRanges | None = None,
    change: Callable[[Placement], Placement] = lambda placement: placement,
) -> Lowered:
    plan = resolved(graph, wants)
    products = [r.key for r in plan.quantized(graph.where) if r.site.op in {"qk", "pv"}]
    opened = open_attention(graph, products)
    ranges = ranges or FixedRanges()
    placement = change(
        place(opened, sites(opened), plan, ranges)  # type: ignore[arg-type]
    )
    quantized = insert(opened, sites(opened), placement, "timestep")
    lower(quantized, "float32", folder)
    return Lowered(quantized, folder, placement)


def weighted(weights: Weights | None, inputs: Any) -> Wants:
    """Asks the same of every convolution and linear operation."""
    return lambda site: (weights, inputs) if site.op in {"conv2d", "linear"} else (None, None)
