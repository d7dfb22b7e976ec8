"""The precision plan: schema, loading, presets and resolution. Imports no torch."""

from __future__ import annotations

from qdx.exporter.plan.load import list_presets, load_plan, parse_plan, plan_from_json
from qdx.exporter.plan.resolve import PlanTarget, Resolution, ResolvedPlan, resolve
from qdx.exporter.plan.schema import Gates, Plan, Rule

__all__ = [
    "Gates",
    "Plan",
    "PlanTarget",
    "Resolution",
    "ResolvedPlan",
    "Rule",
    "list_presets",
    "load_plan",
    "parse_plan",
    "plan_from_json",
    "resolve",
]
