"""Text, tables and sections of a page, with foreign text made harmless."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from qdx.exporter.text.clean import escaped_html

__all__ = ["Markup", "details", "escaped", "joined", "paragraph", "section", "table"]


class Markup(str):
    """Text that is markup already; everything else is foreign."""

    __slots__ = ()


def escaped(value: object) -> Markup:
    """Any value as text of a page; markup stays what it is."""
    if isinstance(value, Markup):
        return value
    return Markup(escaped_html(str(value)))


def joined(parts: Iterable[object], between: str = "") -> Markup:
    """Parts one behind the other; those that are no markup are escaped."""
    return Markup(between.join(map(escaped, parts)))


def paragraph(*parts: object, kind: str = "") -> Markup:
    """A paragraph, of a CSS class where one is named."""
    mark = f' class="{kind}"' if kind else ""
    return Markup(f"<p{mark}>{joined(parts)}</p>\n")


def section(name: str, heading: str, *parts: object) -> Markup:
    """A section that links can name; nothing where it has no content."""
    body = joined(parts)
    if not body:
        return body
    head = f'<h2 id="{name}-heading">{escaped(heading)}</h2>'
    return Markup(
        f'<section id="{name}" aria-labelledby="{name}-heading">\n{head}\n{body}</section>\n'
    )


def details(summary: str, *parts: object) -> Markup:
    """What a reader opens."""
    return Markup(f"<details>\n<summary>{escaped(summary)}</summary>\n{joined(parts)}</details>\n")


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    caption: str,
    numbers: Collection[int] = (),
) -> Markup:
    """A table whose rows become cards where the page is narrow; nothing without rows.

    Args:
        columns: Their headings. The first names the rows.
        rows: Their cells; those that are no markup are escaped.
        caption: What the table tells.
        numbers: Columns that are set as numbers, by place.
    """
    marks = [' class="number"' if place in numbers else "" for place in range(len(columns))]
    head = "".join(
        f'<th scope="col"{mark}>{escaped(column)}</th>'
        for column, mark in zip(columns, marks, strict=True)
    )
    body = "".join(_row(columns, marks, row) for row in rows)
    if not body:
        return Markup("")
    return Markup(
        f'<table class="cards">\n<caption>{escaped(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n"
    )


def _row(columns: Sequence[str], marks: Sequence[str], row: Sequence[object]) -> str:
    first, *others = row
    cells = "".join(
        f'<td{mark} data-label="{escaped(column)}">{escaped(cell)}</td>'
        for column, mark, cell in zip(columns[1:], marks[1:], others, strict=True)
    )
    return f'<tr><th scope="row">{escaped(first)}</th>{cells}</tr>\n'
