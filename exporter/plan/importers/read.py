"""Reading a foreign plan: the file, its importer, and the plan that comes of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qdx.exporter.errors import InvalidInput, InvalidPlan, quoted
from qdx.exporter.files import read_text
from qdx.exporter.graph.ir.site import Site
from qdx.exporter.limits import FOREIGN_PLAN_LIMIT_BYTES
from qdx.exporter.plan.importers.draft import Draft
from qdx.exporter.plan.importers.finding import Finding
from qdx.exporter.plan.importers.foreign import Foreign
from qdx.exporter.plan.importers.registry import importer_of
from qdx.exporter.plan.schema.load import parse_plan
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.strict_json import dump_json, parse_json
from qdx.exporter.strict_yaml import parse_yaml

__all__ = ["Imported", "import_plan", "plan_of_data"]


@dataclass(frozen=True)
class Imported:
    """What became of a foreign plan.

    Attributes:
        tool: Whose it was.
        plan: The plan, without what was refused.
        findings: What is exact, approximate and refused, in the file's order.
    """

    tool: str
    plan: Plan
    findings: tuple[Finding, ...]

    @property
    def refused(self) -> tuple[Finding, ...]:
        """What the plan lacks."""
        return tuple(one for one in self.findings if one.verdict == "refused")


def import_plan(
    path: Path,
    *,
    tool: str | None = None,
    component: str | None = None,
    sites: Sequence[Site] | None = None,
    entry: str | None = None,
) -> Imported:
    """Reads the plan of another tool.

    Args:
        path: A JSON or YAML file; the first character tells which.
        tool: Whose it is; None where the file says so.
        component: Glob of the component that it is about; None for the denoiser.
        sites: Operations of a model, for patterns that only their names decide.
        entry: Which of several plans in the file; None for the only one.

    Raises:
        InvalidInput: The file is malformed, or of another shape than the tool writes.
        UsageError: No tool has that name.
        StorageError: Reading failed.
    """
    text = read_text(path, FOREIGN_PLAN_LIMIT_BYTES, error=InvalidInput)
    source = str(path)
    data = (
        parse_json(text, source=source, error=InvalidInput)
        if text.lstrip().startswith("{")
        else parse_yaml(text, source=source, error=InvalidInput)
    )
    digest = hashlib.sha256(text.encode()).hexdigest()
    return plan_of_data(
        data, source=source, tool=tool, component=component, sites=sites, entry=entry, digest=digest
    )


def plan_of_data(
    data: dict[str, Any],
    *,
    source: str,
    tool: str | None = None,
    component: str | None = None,
    sites: Sequence[Site] | None = None,
    entry: str | None = None,
    digest: str | None = None,
) -> Imported:
    """Reads the plan of another tool out of plain data; see `import_plan`."""
    importer = importer_of(tool, data, source)
    draft = Draft(component, None if sites is None else tuple(sites), entry)
    importer.read(Foreign(data, source), draft)
    shown = "" if digest is None else f" (SHA-256 {digest})"
    value = draft.to_plan(_name(source), f"Imported from a file of {importer.title}{shown}.")
    try:
        plan = parse_plan(dump_json(value).decode(), source="the imported plan")
    except InvalidPlan as bad:
        raise InvalidInput(
            f"{quoted(source)}: what it asks contradicts itself: {bad.message}", hint=bad.hint
        ) from None
    return Imported(importer.tool, plan, tuple(draft.findings))


def _name(source: str) -> str:
    """A plan's name out of a file's."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", Path(source).stem)[:64] or "imported"
