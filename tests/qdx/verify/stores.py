"""A store of recorded runs that is nothing but folders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FolderStore:
    """Entries below a folder, complete or absent."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, kind: str, key: str) -> Path | None:
        path = self.root / kind / key
        return path if path.is_dir() else None

    @contextmanager
    def adding(self, kind: str, key: str) -> Iterator[Path]:
        staging = self.root / f"staging-{key}"
        staging.mkdir(parents=True)
        yield staging
        (self.root / kind).mkdir(exist_ok=True)
        staging.rename(self.root / kind / key)

    @property
    def entries(self) -> list[Path]:
        return sorted(self.root.glob("reference-runs/*"))
