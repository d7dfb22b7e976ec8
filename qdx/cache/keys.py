"""The names of entries: a kind, and the digest of what an entry was computed from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue

from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.files import dump_json

__all__ = ["KEY", "KIND", "check_key", "check_kind", "key_of"]

KIND: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
KEY: Final = re.compile(r"[0-9a-f]{64}")


def key_of(parts: Mapping[str, JsonValue]) -> str:
    """Returns the key of what is computed from these parts: 64 hexadecimal digits.

    Args:
        parts: All that the result depends on, by name: digests of inputs, settings, and a number
            that whoever changes the computation counts up.

    Raises:
        InternalError: If a part is not plain JSON.
    """
    return hashlib.sha256(dump_json(dict(parts))).hexdigest()


def check_kind(kind: str) -> None:
    """Checks the spelling of a kind; raises `UsageError`."""
    if KIND.fullmatch(kind) is None:
        raise UsageError(
            f"{quoted(kind)}: not a kind of cache entry, expected lower-case letters, digits and `-`"
        )


def check_key(key: str) -> None:
    """Checks the spelling of a key; raises `UsageError`."""
    if KEY.fullmatch(key) is None:
        raise UsageError(
            f"{quoted(key)}: not a key of a cache entry, expected 64 hexadecimal digits"
        )
