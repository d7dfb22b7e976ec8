"""The page of what is imported is what its script makes, and has every importer."""

from __future__ import annotations

from benchmarks.foreign_plans import PLANS, RESULTS
from benchmarks.import_table import page
from qdx.exporter.plan.importers import IMPORTERS
from qdx.importing.results import result_tools
from qdx.targets import list_targets
from tests.support.layers import ROOT

PAGE = (ROOT / "docs" / "import-table.md").read_text(encoding="utf-8")


def test_the_page_is_what_the_importers_make_of_it():
    assert page() == PAGE


def test_every_tool_and_target_is_in_it():
    assert PLANS.keys() == {one.tool for one in IMPORTERS}
    assert RESULTS.keys() >= set(result_tools())
    head = next(line for line in PAGE.splitlines() if line.startswith("| Tool"))
    assert all(f"`{name}`" in head for name in list_targets())


def test_each_verdict_is_given_somewhere():
    cells = [cell for line in PAGE.splitlines() if line.startswith("| ") for cell in line.strip("| ").split(" | ")[2:]]  # fmt: skip

    assert {"exact", "near", "no"} < set(cells)
