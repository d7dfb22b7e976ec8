"""The table of what is imported: each tool's formats, and what becomes of them on each target.

Run from the repository root:

python -m benchmarks.import_table -o docs/import-table.md
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.foreign_plans import PLANS, RESULTS
from qdx.exporter.errors import TargetRefusal
from qdx.exporter.graph.ir.site import Site
from qdx.exporter.plan.importers import IMPORTERS, Imported, plan_of_data
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.importing.plans import Operations, fitted
from qdx.targets import list_targets, load_target

__all__ = ["page", "verdict_of"]

_HEAD = """# What is imported

What becomes of the [plans and weights of other tools](importing.md): `exact`, `near` (approximate) or `no` (refused, by the
importer or by the target). Of plans a linear layer of 256 inputs is asked; what is near or refused, and why, `qdx plan import` lists.
`python -m benchmarks.import_table -o docs/import-table.md` writes this page from the importers and the targets themselves.
"""
_WORDS = {"exact": "exact", "approximate": "near", "refused": "no"}
_SITE = Site(
    key="block.linear",
    fqn="block.linear",
    node="linear",
    op="linear",
    role="ff.in",
    stage="block.0",
    macs=1 << 16,
    weight="block.linear.weight",
    weight_shape=(256, 256),
    ports=MappingProxyType({"input": 0}),
)
_OPERATIONS = Operations(
    ("transformer",), {"transformer": "denoiser"}, {"transformer.forward": (_SITE,)}
)


def verdict_of(one: Imported) -> str:
    """The least of what is said of a file's parts."""
    found = {finding.verdict for finding in one.findings}
    return next(name for name in ("refused", "approximate", "exact") if name in found)


def page() -> str:
    """The whole page."""
    titles = {one.tool: one.title for one in IMPORTERS}
    plans = [
        (titles[tool], name, [_plan(tool, data, target) for target in list_targets()])
        for tool, formats in PLANS.items()
        for name, data in formats.items()
    ]
    results = [
        (tool, name, [_result(scheme, target) for target in list_targets()])
        for tool, formats in RESULTS.items()
        for name, scheme in formats.items()
    ]
    return "\n".join([_HEAD, *_table("Plans", plans), "", *_table("Weights", results), ""])


def _plan(tool: str, data: dict[str, Any], target: str) -> str:
    one = plan_of_data(data, source="f", tool=tool, sites=(_SITE,))
    if one.refused:
        return "no"
    try:
        return _WORDS[verdict_of(fitted(one, _OPERATIONS, load_target(target)))]
    except TargetRefusal:  # of an option
        return "no"


def _result(scheme: dict[str, Any] | str, target: str) -> str:
    if isinstance(scheme, str):
        return "no"
    rule = {"select": {"kind": "denoiser", "op": "linear"}, "weights": {"symmetric": True, **scheme}}  # fmt: skip
    if scheme["dtype"] in {"float8_e4m3fn", "nvfp4"}:
        rule["weights"] = scheme
    plan = plan_from_json({"schema": "qdx.plan/1", "rules": [rule], "gates": {}}, source="p")
    one = fitted(Imported("", plan, ()), _OPERATIONS, load_target(target))
    return "no" if one.refused else "exact"


def _table(title: str, rows: Sequence[tuple[str, str, list[str]]]) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield f"| Tool | What | {' | '.join(f'`{name}`' for name in list_targets())} |"
    yield "|---" * (2 + len(list_targets())) + "|"
    for tool, name, cells in rows:
        yield f"| {tool} | {name} | {' | '.join(cells)} |"


def main() -> None:
    """Writes or prints the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    output = parser.parse_args().output
    if output is None:
        print(page())
    else:
        output.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
