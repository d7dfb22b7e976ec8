"""What a path is that is no bundle, and how to come to one."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Final

from qdx.bundle.manifest import MANIFEST_NAME
from qdx.exporter.capture.no_pipeline import is_hub_name
from qdx.exporter.errors import InvalidBundle, quoted

__all__ = ["check_is_bundle", "no_bundle"]

_INDEX: Final = "model_index.json"
_EXPORT: Final = "qdx export MODEL --target TARGET -o BUNDLE"


def check_is_bundle(path: Path | str) -> None:
    """Refuses a path that cannot be a bundle, before anything heavy is imported.

    Raises:
        InvalidBundle: It is no folder with a manifest; with what it is instead.
    """
    if not Path(path, MANIFEST_NAME).is_file():
        raise no_bundle(path)


def no_bundle(path: Path | str) -> InvalidBundle:
    """The error of a path that is not the folder of a bundle.

    Args:
        path: As the user named it.
    """
    place = Path(path)
    if place.is_dir():
        return _other_folder(place)
    if place.name == MANIFEST_NAME and place.is_file():
        return InvalidBundle(f"{quoted(path)}: is a file, expected its folder", hint=f"give {place.parent}")  # fmt: skip
    is_absent = not os.path.lexists(place)
    if is_absent and is_hub_name(path) and not place.parent.is_dir():
        return InvalidBundle(
            f"{quoted(path)}: not a folder, expected a bundle; a model of that name on the hub is fetched and exported first",
            hint=f"hf download {path} --local-dir {place.name}, then qdx export {place.name} --target TARGET -o BUNDLE",
        )
    return InvalidBundle(
        f"{quoted(path)}: not a folder, expected a bundle",
        hint=f"a bundle is the folder that `{_EXPORT}` writes",
    )


def _other_folder(folder: Path) -> InvalidBundle:
    absolute = folder.absolute()
    if (folder / _INDEX).is_file():
        return InvalidBundle(
            f"{quoted(folder)}: has no `{MANIFEST_NAME}`, expected a bundle; it is a pipeline folder, from which a bundle is exported",
            hint=f"qdx export {shlex.quote(str(folder))} --target TARGET -o BUNDLE, then give BUNDLE",
        )
    if os.path.isfile(absolute.parent / MANIFEST_NAME):  # noqa: PTH113 - no fault of the folder where it may not look
        return InvalidBundle(
            f"{quoted(folder)}: has no `{MANIFEST_NAME}`, expected a bundle; it is a part of one",
            hint=f"give {folder.parent if folder.parent.name else absolute.parent}",
        )
    return InvalidBundle(
        f"{quoted(folder)}: has no `{MANIFEST_NAME}`, expected a bundle",
        hint=f"a bundle is the folder that `{_EXPORT}` writes",
    )
