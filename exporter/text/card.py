"""A small table that a notebook shows in the place of an object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qdx.exporter.text.clean import escaped_html

__all__ = ["card"]


def card(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """HTML without styles of its own, so that the notebook's theme holds, light or dark.

    Args:
        title: Stands above the table.
        columns: Headings; empty for a table without.
        rows: Cells of text, in which foreign text is harmless.
    """
    head = f"<tr>{''.join(_cell('th', column) for column in columns)}</tr>" if columns else ""
    body = "".join(f"<tr>{''.join(_cell('td', cell) for cell in row)}</tr>" for row in rows)
    return f"<p><strong>{escaped_html(title)}</strong></p><table>{head}{body}</table>"


def _cell(tag: str, text: str) -> str:
    return f'<{tag} style="text-align: left">{escaped_html(text)}</{tag}>'
