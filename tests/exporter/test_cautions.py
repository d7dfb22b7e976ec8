"""What is done unasked is a warning, and is collected for results."""

from __future__ import annotations

import warnings

import pytest

from qdx.exporter.cautions import caution, collected
from qdx.exporter.errors import QdxWarning


def test_a_caution_is_a_warning_of_qdx():
    with pytest.warns(QdxWarning, match="done unasked"):
        caution("done unasked")


def test_cautions_of_a_task_are_collected_once_each_and_in_order():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with collected() as outer:
            caution("one")
            with collected() as inner:
                caution("two")
                caution("two")
        caution("three")

    assert (outer, inner) == (["one", "two"], ["two"])
