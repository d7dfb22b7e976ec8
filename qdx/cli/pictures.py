"""Names of the pictures that a command writes: checked before they are drawn, and never a reason to lose one that is."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from qdx.exporter.errors import StorageError, UsageError, quoted
from qdx.exporter.files import replace_file

__all__ = ["check_names", "check_output", "expected_count", "free_names", "write_picture"]

_FORMATS: Final = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def check_output(output: Path) -> None:
    """Refuses a name that no picture can have.

    Raises:
        UsageError: Its ending is none of a picture's, it is a folder, or lies in what is none.
    """
    if output.suffix.lower() not in _FORMATS:
        proposal = shlex.quote(str(output.with_suffix(".png"))) if output.name else "image.png"
        raise UsageError(
            f"--output: {quoted(output)} does not end in one of {', '.join(_FORMATS)}",
            hint=f"give -o {proposal}",
        )
    if output.is_dir():
        raise UsageError(
            f"--output: {quoted(output)} is a folder, expected a picture's name",
            hint=f"give -o {shlex.quote(str(output / 'image.png'))}",
        )
    there = next((path for path in output.parents if os.path.lexists(path)), None)
    if there is not None and not there.is_dir():
        raise UsageError(f"--output: {quoted(there)} is not a folder", hint="choose another name")


def expected_count(arguments: Mapping[str, Any]) -> int:
    """How many pictures a call makes, as far as its arguments tell."""
    given = [arguments.get(name) for name in ("prompt", "class_labels")]
    count = max(len(value) if isinstance(value, list) else 1 for value in given)
    for name in ("num_images_per_prompt", "batch_size"):
        value = arguments.get(name)
        count *= value if isinstance(value, int) and value > 0 else 1
    return count


def check_names(output: Path, count: int, *, force: bool) -> None:
    """Refuses names that are taken.

    Args:
        output: The name that was given.
        count: How many pictures are expected.
        force: Whether pictures may be replaced; folders are not.

    Raises:
        UsageError: One of the names is taken.
    """
    for path in [output] if count == 1 else _numbered(output, count):
        if path.is_dir():
            raise UsageError(f"--output: {quoted(path)} is a folder", hint="choose another name")
        if os.path.lexists(path) and not force:
            raise UsageError(f"--output: {quoted(path)} exists", hint="give --force to replace it")


def _numbered(output: Path, count: int) -> list[Path]:
    """What is there under the first so many numbered names; a call may ask for more than a list can hold."""
    if not output.parent.is_dir():
        return []
    start = f"{output.stem}-"
    found = []
    for path in sorted(output.parent.iterdir()):
        number = path.stem.removeprefix(start)
        is_ours = path.suffix == output.suffix and path.stem == f"{start}{number}"
        if is_ours and number.isdecimal() and number == str(int(number)) and int(number) < count:
            found.append(path)
    return found


def free_names(output: Path, count: int, *, force: bool) -> list[Path]:
    """A name for each finished picture: the name that was given for one, numbered names for more.

    Where one of them is taken after all, the next numbers that nothing has.
    """
    is_taken = os.path.isdir if force else os.path.lexists
    paths = [output] if count == 1 else _names(output, count, 0)
    first = 0
    while any(map(is_taken, paths)):
        first += 1
        paths = _names(output, count, first)
    return paths


def _names(output: Path, count: int, first: int) -> list[Path]:
    return [output.with_stem(f"{output.stem}-{first + number}") for number in range(count)]


def write_picture(image: Any, path: Path) -> None:
    """Writes a picture beside its place and moves it there: it is complete or absent.

    Raises:
        StorageError: The disk refused.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as bad:
        raise StorageError(f"{quoted(path)}: cannot be written, {bad.strerror or bad}") from bad
    replace_file(path, partial(image.save, format=_FORMATS[path.suffix.lower()]))
