"""Text, rows and tables of a page, with foreign text made harmless."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from qdx.exporter.text.clean import clean

__all__ = ["escaped", "table", "table_of_text"]


def escaped(value: object) -> str:
    """Any value as text of a page."""
    return html.escape(clean(str(value)), quote=True)


def table(columns: Iterable[str], rows: Iterable[str]) -> str:
    """A table of rows that are marked up."""
    head = "".join(f"<th>{escaped(column)}</th>" for column in columns)
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def table_of_text(columns: Iterable[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of rows of text."""
    cells = ("".join(f"<td>{escaped(cell)}</td>" for cell in row) for row in rows)
    return table(columns, (f"<tr>{row}</tr>" for row in cells))
