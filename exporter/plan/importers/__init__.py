"""Plans of other tools, read into ours: an importer for each tool, and what each part of a file became."""

from __future__ import annotations

from qdx.exporter.plan.importers.finding import Finding, Verdict
from qdx.exporter.plan.importers.read import Imported, import_plan, plan_of_data
from qdx.exporter.plan.importers.registry import IMPORTERS, tools

__all__ = ["IMPORTERS", "Finding", "Imported", "Verdict", "import_plan", "plan_of_data", "tools"]
