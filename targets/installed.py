"""Which version of a runtime is installed. Imports none."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable

__all__ = ["installed_version"]


def installed_version(distributions: Iterable[str]) -> str | None:
    """The version of the first of some packages that is installed; None where none is.

    Args:
        distributions: Packages that provide the same, the usual one first.
    """
    for distribution in distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
