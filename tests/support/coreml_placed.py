"""Placements for Core ML."""

from __future__ import annotations

from typing import Any

from qdx.backends.coreml.place import place
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.rewrites.open_attention import open_attention
from qdx.exporter.plan import plan_from_json, resolve
from qdx.exporter.transforms.placement import Placement
from qdx.targets import load_target

GATES = {"component": {"sqnr_db_min": 10}, "pipeline": {"psnr_db_min": 10, "ssim_min": 0.1}}


W8 = {"dtype": "int8"}


HALF = {"weights": {"dtype": "float16"}}


def placed(graph: Graph, *rules: dict[str, Any], ranges: Any = None) -> tuple[Graph, Placement]:
    """The graph with attention opened where that is asked, and its placement."""
    target = load_target("coreml")
    plan = plan_from_json(
        {"schema": "qdx.plan/1", "rules": list(rules), "gates": GATES}, source="p.json"
    )
    resolved = resolve(plan, [graph.component], target, {graph.where: sites(graph)})
    opened = open_attention(graph, resolved.quantized_products(graph.where))
    return opened, place(opened, sites(opened), resolved, ranges, target)
