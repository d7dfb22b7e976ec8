"""The tables of sites in an IR: those of the ONNX model that it was converted from, in its `rt_info`, which readers ignore."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qdx.backends.site_table import SiteTable, read_both
from qdx.exporter.errors import InvalidBundle, quoted

__all__ = ["read_tables", "write_tables"]


def write_tables(model: Any, tables: Mapping[str, str]) -> None:
    """Stores tables in an IR, by their keys: `qdx.sites` at the path `qdx`, `sites`."""
    for key, text in tables.items():
        model.set_rt_info(text, key.split("."))


def read_tables(model: Any, *, source: str) -> tuple[SiteTable, SiteTable]:
    """The tables of an IR: by the names of the operations that compute sites, and by other names.

    Raises:
        InvalidBundle: One is missing or malformed; `source` names the IR.
    """
    return read_both(lambda key: _text(model, key, source), source=source)


def _text(model: Any, key: str, source: str) -> str | None:
    path = key.split(".")
    try:
        if not model.has_rt_info(path):
            return None
        stored = model.get_rt_info(path)
    except RuntimeError as error:  # what stands at the path is no place for others
        raise InvalidBundle(f"{quoted(source)}: `rt_info` has no place for `{key}`") from error
    return str(stored.value if hasattr(stored, "value") else stored)
