"""Where the user's cache is and how large it may become, from the environment."""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path
from typing import Final

from qdx.exporter.errors import StorageError, UsageError, quoted

__all__ = ["DEFAULT_LIMIT_BYTES", "check_root", "read_size", "user_limit_bytes", "user_root"]

DEFAULT_LIMIT_BYTES: Final = 20 * 2**30
# Another layout of the store goes beside this one, so that older versions of qdx find theirs.
_VERSION: Final = "v1"
_SIZE: Final = re.compile(r"(?i)([0-9]{1,15}(?:\.[0-9]{1,6})?) ?(?:([kmgt])(i?)b?|b?)")
_UNSET_HINT: Final = "set QDX_CACHE to a folder of your own, or give --no-cache"


def user_root() -> Path:
    """Returns the folder of the user's cache: below `$QDX_CACHE`, or where the platform has caches.

    Raises:
        UsageError: If neither is set and there is no home.
    """
    if named := os.environ.get("QDX_CACHE"):
        return Path(os.path.abspath(named)) / _VERSION  # noqa: PTH100 - as the user knows it
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "qdx" / _VERSION
    # A relative path there is to be ignored, says the specification of these folders.
    named = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(named) if Path(named).is_absolute() else _home() / ".cache"
    return folder / "qdx" / _VERSION


def user_limit_bytes() -> int:
    """Returns the size that `$QDX_CACHE_LIMIT` allows, or the default one; raises `UsageError`."""
    text = os.environ.get("QDX_CACHE_LIMIT")
    return read_size(text, source="QDX_CACHE_LIMIT") if text else DEFAULT_LIMIT_BYTES


def read_size(text: str, *, source: str) -> int:
    """Returns a size in bytes.

    >>> read_size("1.5 KiB", source="x")
    1536

    Args:
        text: A number of bytes, or one with a unit: `5GB` is 5 * 1000 ** 3, `5GiB` 5 * 1024 ** 3.
        source: Where it stands, for the message.

    Raises:
        UsageError: If it is none.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"{source}: {quoted(text)} is not a size, expected one like `20GB` or `20GiB`"
        )
    number, unit, binary = match.groups()
    base = 1024 if binary else 1000
    return int(float(number) * base ** ("kmgt".index(unit.lower()) + 1 if unit else 0))


def check_root(root: Path) -> None:
    """Refuses a root that others may have written; a missing one is fine.

    Raises:
        UsageError: If it is a link or a file, belongs to another user, or is open to others.
        StorageError: If it cannot be looked at.
    """
    try:
        status = root.lstat()
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise UsageError(
            f"{quoted(root)}: a file is in the way, expected the folder of the cache",
            hint=_UNSET_HINT,
        ) from None
    except OSError as bad:
        raise StorageError(f"{quoted(root)}: {bad.strerror or bad}", hint=_UNSET_HINT) from bad
    if not stat.S_ISDIR(status.st_mode):
        kind = "a link" if stat.S_ISLNK(status.st_mode) else "not a folder"
        raise UsageError(
            f"{quoted(root)}: is {kind}, expected the folder of the cache", hint=_UNSET_HINT
        )
    if status.st_uid != os.geteuid():
        raise UsageError(
            f"{quoted(root)}: belongs to user {status.st_uid}, expected a cache of your own",
            hint=_UNSET_HINT,
        )
    if status.st_mode & 0o077:
        raise UsageError(
            f"{quoted(root)}: is open to other users, expected mode 0700",
            hint=f"chmod 700 {root}, if all in it is yours; or remove it",
        )


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise UsageError("there is no home folder for a cache", hint=_UNSET_HINT) from None
