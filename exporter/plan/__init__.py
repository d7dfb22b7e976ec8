"""The precision plan: schema, loading, presets and resolution. Imports no torch."""

from __future__ import annotations

from qdx.exporter.plan.resolve.feasibility import PlanTarget
from qdx.exporter.plan.resolve.resolution import Resolution, ResolvedPlan, SiteResolution
from qdx.exporter.plan.resolve.resolve import Examination, examine, resolve
from qdx.exporter.plan.resolve.settle import Chosen
from qdx.exporter.plan.schema.choices import Choices
from qdx.exporter.plan.schema.load import list_presets, load_plan, parse_plan, plan_from_json
from qdx.exporter.plan.schema.plan import (
    AskedGates,
    AskedInputs,
    AskedWeights,
    Calibration,
    Gates,
    Inputs,
    Nncf,
    Options,
    Plan,
    Rule,
    Weights,
)

__all__ = [
    "AskedGates",
    "AskedInputs",
    "AskedWeights",
    "Calibration",
    "Choices",
    "Chosen",
    "Examination",
    "Gates",
    "Inputs",
    "Nncf",
    "Options",
    "Plan",
    "PlanTarget",
    "Resolution",
    "ResolvedPlan",
    "Rule",
    "SiteResolution",
    "Weights",
    "examine",
    "list_presets",
    "load_plan",
    "parse_plan",
    "plan_from_json",
    "resolve",
]
