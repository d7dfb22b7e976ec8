"""A size that a pipeline rounds is told with what it computes instead."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from qdx.source.pipeline import TracedPipeline


def notes(sizes: dict[str, int] | None, **call: Any) -> tuple[str, ...]:
    return TracedPipeline._rounded(SimpleNamespace(sizes=sizes, call=call))  # type: ignore[arg-type]


def test_a_rounded_size_is_told():
    (note,) = notes({"height": 64, "width": 64}, height=65, width=65)

    assert "65x65 pixels were requested, and the pipeline computes 64x64" in note
    assert "give height 64 and width 64" in note
    assert "65x64 pixels" in notes({"height": 64, "width": 64}, width=65)[0]


@pytest.mark.parametrize(
    ("sizes", "call"),
    [(None, {"height": 65}), ({"height": 64, "width": 96}, {}), ({"height": 64, "width": 96}, {"height": 64, "width": 96})],
)  # fmt: skip
def test_a_size_that_is_computed_needs_no_words(sizes, call):
    assert notes(sizes, **call) == ()
