"""A backend that is tested: its artifacts, lowered as the export does it and kept for several checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qdx.backends.contract import Backend, LoweredFiles, Runner
from qdx.backends.registry import get_backend
from qdx.exporter.errors import TargetRefusal
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.rewrites.open_attention import open_attention
from qdx.exporter.plan import plan_from_json, resolve
from qdx.exporter.plan.resolve.resolution import FloatTypes, ResolvedPlan
from qdx.exporter.transforms.insert import insert
from qdx.exporter.transforms.placement import Placement
from qdx.targets.profile import TargetProfile, load_target
from tests.support.conformance.cases import case_of
from tests.support.lowering import lower
from tests.support.onnxruntime_quantized import FixedRanges
from tests.support.processor import SEVEN_BITS

__all__ = ["Made", "Subject"]

_W8 = {"dtype": "int8", **({"reduce_range": True} if SEVEN_BITS else {})}
_A8 = {"dtype": "int8"}
_PLAN = {
    "schema": "qdx.plan/1",
    "rules": [
        {"select": {"op": ["conv2d", "linear"]}, "weights": _W8, "inputs": _A8},
        # A timestep does not fit the range that all inputs are said to have.
        {"select": {"name": "time*"}, "inputs": {"dtype": "float32"}},
    ],
    "gates": {"component": {"sqnr_db_min": 10}, "pipeline": {"psnr_db_min": 10, "ssim_min": 0.1}},
}


@dataclass(frozen=True)
class Made:
    """An artifact and the graph that it is of.

    Attributes:
        graph: As it was lowered, before it had its face.
        folder: Of the artifact.
        files: What the lowering said that it wrote.
        resolved: What the plan becomes; None of a float artifact.
        placement: The quantizers; None of a float artifact.
    """

    graph: Graph
    folder: Path
    files: LoweredFiles
    resolved: ResolvedPlan | None = None
    placement: Placement | None = None

    def answer(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What the graph computes."""
        return next(iter(run(self.graph, inputs).values()))


@dataclass
class Subject:
    """One backend and its usual target.

    Attributes:
        target: Name of the target.
        root: A folder for artifacts.
    """

    target: str
    root: Path
    _made: dict[str, Made] = field(default_factory=dict)

    @property
    def profile(self) -> TargetProfile:
        """Of the target."""
        return load_target(self.target)

    @property
    def backend(self) -> Backend:
        """Of the target's runtime."""
        return get_backend(self.profile.runtime)

    def floats(self, kind: str) -> Made:
        """The float32 artifact of a case."""
        return self._kept(f"{kind} in float32", lambda folder: self._floats(kind, folder))

    def quantized(self, kind: str) -> Made:
        """The artifact of a case in 8 bits, by the plan's way: resolved, placed, inserted, lowered.

        Raises:
            TargetRefusal: The target refuses it.
        """
        return self._kept(f"{kind} in 8 bits", lambda folder: self._quantized(kind, folder))

    def refusal(self, make: Callable[[], object]) -> TargetRefusal | None:
        """How the target refuses what is to be made; None where it does not."""
        try:
            make()
        except TargetRefusal as refusal:
            return refusal
        return None

    def open(self, folder: Path, **options: str) -> Runner:
        """Opens an artifact with the target's pinned options and one thread."""
        return self.backend.open(folder, {**self.profile.options, **options}, threads=1)

    def arrays(self, inputs: Mapping[str, torch.Tensor], runner: Runner) -> dict[str, NDArray[Any]]:
        """Inputs as the artifact declares them; its names are those of the graph."""
        return {
            spec.name: inputs[spec.name]
            .numpy()
            .astype(spec.dtype)
            .reshape(inputs[spec.name].shape or (1,) * len(spec.shape))
            for spec in runner.inputs
        }

    def run(self, folder: Path, inputs: Mapping[str, torch.Tensor], **options: str) -> NDArray[Any]:
        """What an artifact answers."""
        runner = self.open(folder, **options)
        return np.asarray(next(iter(runner(self.arrays(inputs, runner)).values())))

    def fresh_folder(self) -> Path:
        """An empty folder."""
        folder = self.root / str(sum(1 for _ in self.root.iterdir()))
        folder.mkdir()
        return folder

    def _kept(self, name: str, make: Any) -> Made:
        if name not in self._made:
            self._made[name] = make(self.fresh_folder())
        return self._made[name]

    def _floats(self, kind: str, folder: Path) -> Made:
        graph = case_of(kind).graph
        return Made(graph, folder, lower(graph, FloatTypes("float32"), self.profile, folder))

    def _quantized(self, kind: str, folder: Path) -> Made:
        graph = case_of(kind).graph
        plan = plan_from_json(self._plan(kind), source="conformance.json")
        resolved = resolve(plan, [graph.component], self.profile, {graph.where: sites(graph)})
        opened = open_attention(graph, resolved.quantized_products(graph.where))
        ranges: Any = FixedRanges()
        placement = self.backend.place(opened, sites(opened), resolved, ranges)
        made = insert(opened, sites(opened), placement)
        files = lower(made, FloatTypes("float32"), self.profile, folder)
        return Made(made, folder, files, resolved, placement)

    def _plan(self, kind: str) -> dict[str, Any]:
        if kind != "attention":
            rules = _PLAN["rules"] if kind == "block" else _PLAN["rules"][:1]  # type: ignore[index]
            return {**_PLAN, "rules": rules}
        products = {"select": {"op": ["qk", "pv"]}, "inputs": _A8}
        return {**_PLAN, "rules": [_PLAN["rules"][0], products]}  # type: ignore[index]
