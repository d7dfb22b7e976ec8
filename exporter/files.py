"""Reading untrusted files, the only door through which bytes of strangers come in; and writing one whole or not at all.

A name from a file becomes a path only through `safe_child`. A file is opened only through
`open_regular`: no links, no pipes, no devices. All later work uses that descriptor, so that what
was checked is what is read. A file that replaces another is written by `replace_file`, one that
must be new by `write_new_file`.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import itertools
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

from qdx.exporter.errors import InvalidInput, InvalidModel, StorageError, quoted
from qdx.exporter.limits import (
    JSON_LIMIT_BYTES,
    PATH_SEGMENT_LIMIT,
    PATH_SEGMENTS_LIMIT,
)
from qdx.exporter.model_links import blob_of, is_all_inside, open_blob
from qdx.exporter.strict_json import (
    CONFIG,
    STRICT,
    JsonRules,
    dump_json,
    parse_json,
    position_of,
)

__all__ = [
    "CONFIG",
    "LINK_HINT",
    "STRICT",
    "JsonRules",
    "check_relative",
    "dump_json",
    "is_leftover",
    "is_relative",
    "load_json",
    "near_path",
    "open_regular",
    "parse_json",
    "position_of",
    "read_bytes",
    "read_text",
    "replace_file",
    "safe_child",
    "sha256_file",
    "write_new_file",
]

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)
# Names that Windows treats as devices whatever their ending.
_DEVICE: Final = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
_LEFTOVER: Final = re.compile(r"\..+\.qdx-[0-9]+-[0-9]+")
_CHUNK_BYTES: Final = 1 << 20
LINK_HINT: Final = (
    "copy the folder with the links resolved, for example `cp -rL FROM TO`, "
    "or download with `hf download REPO --local-dir TO`"
)
# Without O_NONBLOCK, opening a pipe would wait for a writer for ever.
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EISDIR})


def check_relative(relative: str, *, error: type[InvalidInput] = InvalidModel) -> None:
    """Checks the spelling of a relative path; the disk is not touched.

    Segments are `[A-Za-z0-9_][A-Za-z0-9._-]*`, at most 128 long, joined by `/`. This leaves no
    room for `..`, absolute paths, drive letters, `~`, NUL, or Unicode look-alikes.

    Raises:
        InvalidInput: Or the subclass given.
    """
    if not is_relative(relative):
        raise error(
            f"{quoted(relative)}: not an allowed relative path, expected names like `a/b.c`"
        )


def is_relative(relative: str) -> bool:
    """Whether a relative path is spelled as `check_relative` wants it."""
    segments = relative.split("/")
    return len(segments) <= PATH_SEGMENTS_LIMIT and all(_is_segment(part) for part in segments)


def _is_segment(part: str) -> bool:
    return (
        len(part) <= PATH_SEGMENT_LIMIT
        and _SEGMENT.fullmatch(part) is not None
        and not part.endswith(".")
        and _DEVICE.fullmatch(part) is None
    )


def safe_child(
    root: Path | str,
    relative: str,
    *,
    error: type[InvalidInput] = InvalidModel,
    in_model: bool = False,
) -> Path:
    """Turns a name found in a file into a path below a folder.

    Args:
        root: A folder that the user named. It may itself be reached through links.
        relative: The name, see `check_relative`.
        error: Class of the error raised.
        in_model: Whether it is a file of a model's folder, which may be a link of the hub's cache.

    Returns:
        The absolute path. It may be missing; what exists of it is neither special nor another link.

    Raises:
        InvalidInput: Or the subclass given: a bad name, a link, a device, a pipe, a socket.
        StorageError: If the folder cannot be searched.
    """
    check_relative(relative, error=error)
    # Not `resolve`: from here on every link must stay visible.
    path = Path(os.path.abspath(root))  # noqa: PTH100
    segments = relative.split("/")
    for index, segment in enumerate(segments):
        path = path / segment
        try:
            mode = path.lstat().st_mode
        except OSError as bad:
            if bad.errno in _ABSENT:
                return path.joinpath(*segments[index + 1 :])
            raise _storage(path, bad) from bad
        if stat.S_ISLNK(mode):
            if in_model and index == len(segments) - 1 and blob_of(path) is not None:
                return path
            raise error(f"{quoted(path)}: is a symbolic link, expected a file", hint=LINK_HINT)
        if not stat.S_ISDIR(mode) and not (stat.S_ISREG(mode) and index == len(segments) - 1):
            raise error(f"{quoted(path)}: is {_kind(mode)}, expected a file or folder")
    return path


def open_regular(
    path: Path | str,
    *,
    error: type[InvalidInput] = InvalidModel,
    allow_hard_links: bool = False,
    in_model: bool = False,
) -> BinaryIO:
    """Opens a regular file for reading, unbuffered.

    Args:
        path: The file. Its last part must not be a link; use `safe_child` for the parts before.
        error: Class of the error raised for a file that is missing or of the wrong kind.
        allow_hard_links: Whether the file may have other names. Only for files of qdx itself,
            which installers may link into place; elsewhere a second name can be a file outside.
        in_model: Whether it is a file of a model's folder: it may be a link of the hub's cache to a blob of the same
            repository, and may have other names inside the repository.

    Raises:
        InvalidInput: Or the subclass given.
        StorageError: If the operating system refuses to read it.
    """
    name = os.fspath(path)
    try:
        descriptor = open_blob(Path(name), _OPEN) if in_model else None
        if descriptor is None:
            descriptor = os.open(name, _OPEN)
    except OSError as bad:
        raise _open_error(name, bad, error) from None
    except ValueError:  # NUL, or text that the file system cannot encode
        raise error(f"{quoted(name)}: not a path, expected a file") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise error(f"{quoted(name)}: is {_kind(status.st_mode)}, expected a file")
        linked = status.st_nlink != 1 and not allow_hard_links
        if linked and not (in_model and is_all_inside(Path(name), status)):
            message = (
                f"{quoted(name)}: has {status.st_nlink} hard links, expected a file of its own"
            )
            raise error(message, hint="copy the folder, for example `cp -r FROM TO`")
        return open(descriptor, "rb", buffering=0)  # noqa: PTH123
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(
    path: Path | str,
    limit_bytes: int,
    *,
    error: type[InvalidInput] = InvalidModel,
    allow_hard_links: bool = False,
    in_model: bool = False,
) -> bytes:
    """Reads a whole file that must not be larger than a limit.

    Raises:
        InvalidInput: Or the subclass given: missing, too large, not a plain file.
        StorageError: If reading fails.
    """
    with open_regular(
        path, error=error, allow_hard_links=allow_hard_links, in_model=in_model
    ) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            # One byte more than allowed, in case the file grows while it is read.
            data = b"" if size > limit_bytes else _read_up_to(file, limit_bytes + 1)
        except OSError as bad:
            raise _storage(path, bad) from bad
    if max(size, len(data)) > limit_bytes:
        found = max(size, len(data))
        raise error(f"{quoted(path)}: {found} bytes, expected at most {limit_bytes}")
    return data


def read_text(
    path: Path | str,
    limit_bytes: int = JSON_LIMIT_BYTES,
    *,
    error: type[InvalidInput] = InvalidModel,
    allow_hard_links: bool = False,
    in_model: bool = False,
) -> str:
    """Reads a UTF-8 text without byte order mark; raises like `read_bytes`."""
    data = read_bytes(
        path, limit_bytes, error=error, allow_hard_links=allow_hard_links, in_model=in_model
    )
    if data.startswith(b"\xef\xbb\xbf"):
        raise error(f"{quoted(f'{path}:1:1')}: starts with a byte order mark, expected plain UTF-8")
    try:
        return data.decode("utf-8", "strict")
    except UnicodeDecodeError as bad:
        line = data.count(b"\n", 0, bad.start) + 1
        column = bad.start - data.rfind(b"\n", 0, bad.start)
        where = quoted(f"{path}:{line}:{column}")
        raise error(f"{where}: byte 0x{data[bad.start]:02x}, expected UTF-8") from None


def load_json(
    path: Path | str,
    *,
    limit_bytes: int = JSON_LIMIT_BYTES,
    error: type[InvalidInput] = InvalidModel,
    rules: JsonRules = STRICT,
    allow_hard_links: bool = False,
    in_model: bool = False,
) -> dict[str, Any]:
    """Reads an untrusted JSON object from a file.

    Args:
        path: The file.
        limit_bytes: Largest size.
        error: Class of the error raised.
        rules: `STRICT`, or `CONFIG` for files that other libraries write.
        allow_hard_links: See `open_regular`.
        in_model: Likewise.

    Raises:
        InvalidInput: Or the subclass given, with the file and, where there is one, line:column.
        StorageError: If reading fails.
    """
    text = read_text(
        path, limit_bytes, error=error, allow_hard_links=allow_hard_links, in_model=in_model
    )
    return parse_json(text, source=os.fspath(path), error=error, rules=rules)


def sha256_file(
    path: Path | str,
    *,
    error: type[InvalidInput] = InvalidModel,
    allow_hard_links: bool = False,
    in_model: bool = False,
) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits; raises like `open_regular`."""
    with open_regular(
        path, error=error, allow_hard_links=allow_hard_links, in_model=in_model
    ) as file:
        try:
            return _digest(file)
        except OSError as bad:
            raise _storage(path, bad) from bad


def near_path(path: Path, fits: Callable[[Path], bool] = lambda _: True) -> Path | None:
    """Returns what the name of something absent may have meant: what stands in its folder under a name nearby.

    Args:
        path: Of what is absent.
        fits: Whether what stands there is of the kind that is wanted; it does not raise.

    Returns:
        None where nothing there fits, or the folder cannot be looked at: that is no fault of the name.
    """
    try:
        names = sorted(one.name for one in path.parent.iterdir() if fits(one))
    except OSError:
        return None
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    return path.with_name(near[0]) if near else None


def replace_file(
    path: Path, content: bytes | Callable[[BinaryIO], object], *, hint: str | None = None
) -> None:
    """Writes a file beside its place and moves it there: it is the earlier file, the whole new one, or absent.

    The new one is on the disk before it has its name. After an error or an interrupt nothing else is left; after a
    kill, a hidden file beside it, which `is_leftover` knows by its name.

    Args:
        path: The file. Its folder exists; a link of this name is replaced, not followed.
        content: Its bytes, or what writes them to a file.
        hint: What to do where the disk refuses.

    Raises:
        StorageError: The disk refused.
    """
    try:
        _write_whole(path, content)
    except OSError as bad:
        message = f"{quoted(path)}: cannot be written, {bad.strerror or bad}"
        raise StorageError(message, hint=hint) from bad


def write_new_file(path: Path, content: bytes) -> None:
    """Writes a file as `replace_file` does, where none of its name was before.

    Raises:
        FileExistsError: The name is taken, if only by a link that leads nowhere.
        OSError: The disk refused.
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(path))
    _write_whole(path, content, is_new=True)


def is_leftover(name: str) -> bool:
    """Whether a file of this name is what a killed `replace_file` left."""
    return _LEFTOVER.fullmatch(name) is not None


def _write_whole(
    path: Path, content: bytes | Callable[[BinaryIO], object], *, is_new: bool = False
) -> None:
    made: list[Path] = []
    try:
        hidden, file = _beside(path)
        made.append(hidden)
        with file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            path.touch(exist_ok=False)  # another may have taken the name meanwhile
            made.append(path)
        hidden.replace(path)
    except BaseException:
        for left in made:
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _beside(path: Path) -> tuple[Path, BinaryIO]:
    """A new hidden file beside another, open for writing."""
    for number in itertools.count():
        hidden = path.with_name(f".{path.name}.qdx-{os.getpid()}-{number}")
        with contextlib.suppress(FileExistsError):
            return hidden, hidden.open("xb")
    raise AssertionError  # the names do not end


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _read_up_to(file: BinaryIO, count: int) -> bytes:
    chunks = bytearray()
    while len(chunks) < count and (chunk := file.read(min(count - len(chunks), _CHUNK_BYTES))):
        chunks += chunk
    return bytes(chunks)


def _open_error(name: str, bad: OSError, error: type[InvalidInput]) -> Exception:
    if bad.errno == errno.ELOOP:
        return error(f"{quoted(name)}: is a symbolic link, expected a file", hint=LINK_HINT)
    if bad.errno == errno.ENXIO:
        return error(f"{quoted(name)}: is a socket or device, expected a file")
    if bad.errno in _ABSENT:
        return error(f"{quoted(name)}: not found, expected a file", hint=_meant(Path(name)))
    return _storage(name, bad)


def _meant(path: Path) -> str | None:
    """The question that names what the name of an absent file may have meant; None where there is no telling."""
    near = near_path(path)
    return None if near is None else f"did you mean {quoted(near)}?"


def _storage(path: Path | str, bad: OSError) -> StorageError:
    return StorageError(f"{quoted(path)}: cannot be read, {bad.strerror or bad}")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFLNK: "a symbolic link",
    }
    return kinds.get(stat.S_IFMT(mode), "a file")
