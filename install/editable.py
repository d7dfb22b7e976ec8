"""The build backend: setuptools, and for editable installs links by which type checkers find the package.

The folders of the top level are the parts of one package. Setuptools lets Python find them by an import hook, which mypy
and pyright do not run. So an editable install also makes a folder of links, with the package as a wheel has it, and
names that folder in its `.pth` file, which they do read. Python itself keeps to the hook: it is asked first.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import sys
import tomllib
import zipfile  # noqa: TID251 - a wheel that setuptools has just written
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "link_package",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

ROOT: Final = Path(__file__).resolve().parents[1]
LINKS: Final = ROOT / "build" / "editable"


def build_editable(
    wheel_directory: str,
    config_settings: Mapping[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """The hook of PEP 660: a wheel that leads to this tree.

    Args:
        wheel_directory: Where the wheel is written.
        config_settings: Those of setuptools; with an `editable_mode` of your own, setuptools alone decides.
        metadata_directory: As for setuptools.

    Returns:
        The name of the wheel.
    """
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    try:
        link_package(LINKS)
    except OSError as error:  # Windows lets some users make no links
        sys.stderr.write(f"type checkers will not find the package: no links: {error}\n")
    else:
        _lead_to(LINKS, Path(wheel_directory) / name)
    return name


def link_package(folder: Path) -> None:
    """Makes a folder in which the package stands as it is installed, each part and module a link into the tree.

    Args:
        folder: Made anew.

    Raises:
        OSError: The system makes no links, or the disk refuses.
    """
    if folder.exists():
        shutil.rmtree(folder)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    parts: dict[str, str] = project["tool"]["setuptools"]["package-dir"]
    (top,) = (name for name in parts if "." not in name)
    package = folder / top
    package.mkdir(parents=True)
    inside = {path.name: path for path in (ROOT / parts[top]).iterdir()}
    others = {name.removeprefix(f"{top}."): ROOT / parts[name] for name in parts if name != top}
    for name, path in {**inside, **others}.items():
        if name != "__pycache__":
            target = os.path.relpath(path, package)
            (package / name).symlink_to(target, target_is_directory=path.is_dir())


def _lead_to(folder: Path, wheel: Path) -> None:
    """Adds a folder to the `.pth` file of an editable wheel that has a hook, and lets the hook be asked first."""
    with zipfile.ZipFile(wheel) as archive:
        files = {entry: archive.read(entry) for entry in archive.infolist()}
    paths = [entry for entry in files if entry.filename.endswith(".pth")]
    hooks = [entry.filename for entry in files if entry.filename.endswith("_finder.py")]
    if len(paths) != 1 or len(hooks) != 1:
        return  # another mode of setuptools: it names folders already
    (path,), (hook,) = paths, hooks
    first = (
        "import sys; sys.meta_path.sort("
        f"key=lambda one: getattr(one, '__module__', '') != {hook.removesuffix('.py')!r})"
    )
    lines = [files[path].decode().rstrip("\n"), first, str(folder)]
    files[path] = "".join(f"{line}\n" for line in lines).encode()
    (record,) = (entry for entry in files if entry.filename.endswith(".dist-info/RECORD"))
    files[record] = _with_digest(files[record].decode(), path.filename, files[path]).encode()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in files.items():
            archive.writestr(entry, data)


def _with_digest(record: str, name: str, data: bytes) -> str:
    """The list of a wheel's files with a new line for one of them."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    line = f"{name},sha256={digest},{len(data)}"
    lines = record.splitlines()
    return "".join(f"{line if one.split(',')[0] == name else one}\n" for one in lines)


if __name__ == "__main__":
    link_package(LINKS)
