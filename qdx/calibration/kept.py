"""Calibrations kept between runs: one that was interrupted goes on, one that is finished is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from qdx.cache.keys import key_of
from qdx.exporter.calibrate.ranges import Ranges
from qdx.exporter.calibrate.ranges_file import load_ranges, save_ranges
from qdx.exporter.errors import InvalidInput, StorageError

if TYPE_CHECKING:
    from pydantic import JsonValue

    from qdx.cache.store import Store
    from qdx.exporter.progress import Progress

__all__ = ["Kept", "kept_ranges"]

_RANGES: Final = "ranges"
_UNDER_WAY: Final = "calibration"
_FILE: Final = "ranges.qdx"


@dataclass(frozen=True)
class Kept:
    """Where calibrations are kept, and whether what is there counts.

    Attributes:
        store: The user's cache.
        fresh: Begin anew, whatever is there.
    """

    store: Store
    fresh: bool = False


def kept_ranges(
    parts: Mapping[str, JsonValue],
    record: Callable[[Path], Ranges],
    kept: Kept | None,
    progress: Progress,
) -> Ranges:
    """The ranges that these parts lead to: read where they are kept, else recorded.

    Args:
        parts: All that they depend on.
        record: Records them; the folder may hold what an interrupted run has done, and keeps what this one does.
        kept: Where to look; None records anew and keeps nothing.
        progress: Told what was found.

    Raises:
        UsageError: Another process works on the same calibration.
    """
    if kept is None:
        with TemporaryDirectory(prefix="qdx-calibration-") as temporary:
            return record(Path(temporary))
    key = key_of(parts)
    found = None if kept.fresh else _found(kept.store, key, progress)
    if found is not None:
        return found
    with _under_way(kept, key, progress) as place:
        # Another process may have finished the same one before this one had the place for itself.
        found = None if kept.fresh else _found(kept.store, key, progress)
        if found is None:
            found = record(place)
            with kept.store.adding(_RANGES, key) as staging:
                save_ranges(found, staging / _FILE)
        try:
            kept.store.remove_working(_UNDER_WAY, key)
        except StorageError as bad:  # nothing is lost but room
            progress.say(f"calibration: {bad.message}")
    return found


def _found(store: Store, key: str, progress: Progress) -> Ranges | None:
    """Ranges that were recorded before; None without, or where they are damaged."""
    folder = store.find(_RANGES, key)
    if folder is None:
        return None
    try:
        found = load_ranges(folder / _FILE)
    except InvalidInput as damaged:
        progress.say(f"calibration: what was kept is damaged and is made again: {damaged.message}")
        return None
    finally:
        store.release(_RANGES, key)
    progress.say("calibration: the ranges were recorded before, and are taken from the cache")
    return found


@contextmanager
def _under_way(kept: Kept, key: str, progress: Progress) -> Iterator[Path]:
    """The folder of a calibration under way, or a temporary one where the cache has no room."""
    with ExitStack() as stack:
        try:
            if kept.fresh:
                kept.store.remove_working(_UNDER_WAY, key)
            place = stack.enter_context(kept.store.working(_UNDER_WAY, key))
        except StorageError as full:
            progress.say(f"calibration: continues without the cache: {full.message}")
            temporary = TemporaryDirectory(prefix="qdx-calibration-")
            place = Path(stack.enter_context(temporary))
        yield place
