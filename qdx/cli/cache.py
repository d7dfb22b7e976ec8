"""`qdx cache`: what is kept between runs, and removing it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from qdx.cli.options import AsJson
from qdx.cli.output import emit, size, table

if TYPE_CHECKING:
    from qdx.cache.entry import Entry
    from qdx.cache.store import Store

__all__ = ["app"]

app: Final = typer.Typer(
    help="Show or remove what qdx keeps between runs.",
    invoke_without_command=True,
    rich_markup_mode=None,
    add_completion=False,
)


@app.callback()
def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Show or remove what qdx keeps between runs.

    The folder is $QDX_CACHE, or the platform's for caches; its limit is $QDX_CACHE_LIMIT, such as
    20GB. All in it can be removed at any time: it is computed again.
    """
    if context.invoked_subcommand is not None:
        return
    from qdx.cache.store import user_store

    data = _described(user_store())
    emit(data, as_json=as_json, text=_as_text(data))


@app.command("clear")
def clear(
    kind: Annotated[
        str | None, typer.Argument(metavar="[KIND]", help="Only entries of this kind.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove all entries, or those of one kind; what a running process uses stays."""
    from qdx.cache.store import user_store

    store = user_store()
    cleared = store.clear(kind)
    what = "entries" if kind is None else f"entries of {kind}"
    text = f"removed {cleared.entries} {what}, {size(cleared.size_bytes)}, from {store.root}"
    if cleared.in_use:
        text += f"\n{cleared.in_use} stay: in use, or not to be removed"
    emit({"root": store.root, **vars(cleared)}, as_json=as_json, text=text)


def _described(store: Store) -> dict[str, Any]:
    entries = store.entries()
    kinds: dict[str, list[Entry]] = {}
    for entry in entries:
        kinds.setdefault(entry.kind, []).append(entry)
    return {
        "root": store.root,
        "limit_bytes": store.limit_bytes,
        "size_bytes": sum(entry.size_bytes for entry in entries),
        "kinds": [
            {
                "kind": kind,
                "entries": sum(entry.state == "complete" for entry in found),
                "working": sum(entry.state == "working" for entry in found),
                "size_bytes": sum(entry.size_bytes for entry in found),
                "last_used": _as_time(max(entry.used_at for entry in found)),
            }
            for kind, found in sorted(kinds.items())
        ],
    }


def _as_text(data: dict[str, Any]) -> str:
    head = f"{data['root']}: {size(data['size_bytes'])} of {size(data['limit_bytes'])}"
    rows = [
        (one["kind"], one["entries"], one["working"], size(one["size_bytes"]), one["last_used"])
        for one in data["kinds"]
    ]
    if not rows:
        return f"{head}, empty"
    columns = ("kind", "entries", "under way", "size", "last use (UTC)")
    return f"{head}\n\n{table(columns, rows)}"


def _as_time(seconds: float) -> str:
    moment = dt.datetime.fromtimestamp(seconds, tz=dt.UTC)
    return moment.replace(microsecond=0, tzinfo=None).isoformat(sep=" ")
