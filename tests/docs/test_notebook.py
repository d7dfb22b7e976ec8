"""The notebook runs as it stands, and shows what its text says."""

from __future__ import annotations

import ast
import re

import pytest

import qdx
from tests.support.layers import ROOT
from tests.support.notebooks import code_cells, read_notebook, run_notebook

NOTEBOOK = read_notebook(ROOT / "docs" / "first-notebook.ipynb")


def test_the_notebook_is_stored_without_what_it_shows():
    code = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]

    assert [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"]] == []


def test_the_notebook_is_of_the_format_that_it_names():
    names = [cell["id"] for cell in NOTEBOOK["cells"]]

    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[\w-]{1,64}", name) for name in names)


def test_the_notebook_uses_public_names_alone():
    used = {
        node.attr
        for _, source in code_cells(NOTEBOOK)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "qdx"
    }

    assert {"export", "open", "verify"} <= used <= set(qdx.__all__)


def test_links_of_the_notebook_lead_to_pages():
    text = "".join(line for cell in NOTEBOOK["cells"] for line in cell["source"])
    links = re.findall(r"\]\(([\w-]+\.md)\)", text)

    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_a_cell_that_fails_ends_the_run():
    cell = {"cell_type": "code", "id": "one", "source": ["a = 1\n", "a.no_such_name"]}

    with pytest.raises(AttributeError, match="no_such_name"):
        run_notebook({"cells": [cell]})


@pytest.mark.slow
def test_the_notebook_runs_and_its_gates_hold(tmp_path, monkeypatch):
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    monkeypatch.chdir(tmp_path)

    shown = run_notebook(NOTEBOOK)

    assert shown["export"].bundle == tmp_path / "out" / "notebook"
    assert "unet.forward" in shown["export"]._repr_html_()
    assert "passed" in shown["verify"]._repr_html_()
    assert shown["failed"] == []
    assert shown["open"] == "StableDiffusionPipeline"
    assert shown["pictures"].size == (4 * 3 * 64, 4 * 64)
    assert shown["psnr"] >= 20  # the bound of the preset
