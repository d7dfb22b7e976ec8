"""Digests of a manifest's own parts, by which an edit of `qdx.json` is found and named.

They find accidents and quiet edits. They are no signature: whoever edits a part can compute its digest too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from qdx.exporter.errors import InvalidBundle, quoted
from qdx.exporter.files import dump_json

__all__ = ["SEAL", "check_seal", "seal_of"]

SEAL: Final = "content_sha256"
"""The key of the digests in `qdx.json`."""

_HINT: Final = "export again, or copy the bundle again; to judge by other gates give `qdx verify` --plan or --gates"


def seal_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The SHA-256 of every part of a manifest by its key, and of the gates in it by `resolved.gates`.

    Args:
        manifest: Plain JSON data; digests that it has already do not count.
    """
    parts = {key: value for key, value in manifest.items() if key != SEAL}
    resolved = parts.get("resolved")
    if isinstance(resolved, Mapping) and "gates" in resolved:
        parts["resolved.gates"] = resolved["gates"]
        parts["resolved"] = {key: value for key, value in resolved.items() if key != "gates"}
    return {key: hashlib.sha256(dump_json(value)).hexdigest() for key, value in parts.items()}


def check_seal(manifest: Mapping[str, Any], *, source: str) -> None:
    """Refuses a manifest that was edited after it was written.

    Args:
        manifest: Plain JSON data.
        source: Its path, for messages.

    Raises:
        InvalidBundle: Naming the parts that are not as they were written.
    """
    written, found = manifest.get(SEAL), seal_of(manifest)
    if written == found:
        return
    stored = written if isinstance(written, Mapping) else {}
    edited = sorted(key for key in {*stored, *found} if stored.get(key) != found.get(key))
    names = ", ".join(quoted(key) for key in edited)
    raise InvalidBundle(
        f"{quoted(source)}: {names} was edited after the export, expected what {quoted(SEAL)} has the digest of",
        hint=_HINT,
    )
