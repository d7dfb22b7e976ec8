"""Renaming a folder without ever replacing by accident, and exchanging two folders at once."""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["exchange", "rename_new"]

# From linux/fs.h and fcntl.h.
_NOREPLACE: Final = 1
_EXCHANGE: Final = 2
_AT_FDCWD: Final = -100
_UNSUPPORTED: Final = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP})


def rename_new(source: Path, target: Path) -> None:
    """Renames a folder to a name that must be free.

    Raises:
        FileExistsError: If the name is taken.
        OSError: Otherwise.
    """
    if _renameat2(source, target, _NOREPLACE):
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    try:
        source.rename(target)
    except OSError as bad:
        if bad.errno in {errno.ENOTEMPTY, errno.ENOTDIR, errno.EEXIST}:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from bad
        raise


def exchange(first: Path, second: Path) -> bool:
    """Exchanges two names in one atomic step.

    Returns:
        False where the system or file system cannot do it; nothing has changed then.

    Raises:
        OSError: If it failed otherwise; nothing has changed.
    """
    return _renameat2(first, second, _EXCHANGE)


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    function = _libc_renameat2()
    if function is None:
        return False
    arguments = _AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags
    if function(*arguments) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(source), None, str(target))


@cache
def _libc_renameat2() -> ctypes._CFuncPtr | None:  # type: ignore[name-defined]
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is not None:
        path, number = ctypes.c_char_p, ctypes.c_int
        function.argtypes = [number, path, number, path, ctypes.c_uint]
        function.restype = number
    return function
