"""What is kept of a sample under way, so that the same command continues where it was interrupted.

    sample-0003/
        000012-<SHA-256>.safetensors    what a component answered in call 12
        observed-000045-<SHA-256>.qdx   the statistics after call 45, as a file of ranges
        finished-<SHA-256>.qdx          the statistics of the whole sample

Going on, the pipeline's own Python runs again from the start and is given the answers that are kept; nothing
is computed twice, and nothing of the pipeline's state need be saved. Every file is written aside and renamed. Its
SHA-256 is that of its seal, its place and its content: what is damaged, and what is another calibration's or another
sample's, does not have the digest of its name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from qdx.exporter.calibrate.ranges import Ranges
from qdx.exporter.calibrate.ranges_file import dump_ranges, load_ranges
from qdx.exporter.errors import InvalidInput, StorageError, quoted
from qdx.exporter.files import is_leftover, open_regular, replace_file
from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile

__all__ = ["KeptAnswers", "SampleCheckpoint", "Seal"]

_NAME: Final = re.compile(r"(\d{6}|observed-\d{6}|finished)-([0-9a-f]{64})\.(safetensors|qdx)")
_FINISHED: Final = "finished"
_CHUNK_BYTES: Final = 2**20


@dataclass(frozen=True)
class Seal:
    """What kept files belong to.

    Attributes:
        answers: Tells the sample and the calls that lead through it.
        statistics: Tells, beside that, what is observed.
    """

    answers: str
    statistics: str


class KeptAnswers:
    """What components answered in the calls of a sample.

    Args:
        folder: Where they are; a missing one holds none.
        seal: What they belong to.

    Attributes:
        damage: What was wrong with what was kept, of which nothing is used; empty where nothing was.

    Raises:
        StorageError: The disk refused.
    """

    def __init__(self, folder: Path, seal: Seal) -> None:
        self._folder = folder
        self._seal = seal
        self._files: dict[str, Path] = {}
        self.damage = ""
        try:
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if self._is_ours(path.name):
                    self._take(path)
        except OSError as bad:
            raise StorageError(f"{quoted(folder)}: {bad.strerror or bad}") from bad

    def _is_ours(self, name: str) -> bool:
        """Whether a file is for this class to look at: answers alone, whatever the statistics beside them are of."""
        found = _NAME.fullmatch(name)
        return found is not None and found[1].isdigit()

    def _take(self, path: Path) -> None:
        """Finds out what a file is, and removes it where it is damaged or another's."""
        found = _NAME.fullmatch(path.name)
        why = None
        if found is None:
            why = None if is_leftover(path.name) else "is no part of a calibration"
        else:
            try:
                digest = self._digest_of(found[1])
                with open_regular(path, error=InvalidInput) as file:
                    while part := file.read(_CHUNK_BYTES):
                        digest.update(part)
                if digest.hexdigest() == found[2]:
                    self._files[found[1]] = path
                    return
                why = "does not have its SHA-256"
            except InvalidInput as bad:
                why = bad.message
        if why is not None:
            self.damage = self.damage or f"{quoted(path.name)}: {why}"
        if path.is_dir() and not path.is_symlink():
            return  # nothing of ours, and nothing that is in the way
        path.unlink()

    def _digest_of(self, part: str) -> hashlib._Hash:
        """The digest of a file before its content."""
        seal = self._seal.answers if part.isdigit() else self._seal.statistics
        return hashlib.sha256(f"{seal} {part}\n".encode())

    def _write(self, part: str, data: bytes, ending: str) -> None:
        digest = self._digest_of(part)
        digest.update(data)
        path = self._folder / f"{part}-{digest.hexdigest()}{ending}"
        replace_file(path, data)
        self._files[part] = path

    def answer(self, call: int) -> dict[str, torch.Tensor] | None:
        """What a component answered in a call, by name of the output; None where it is not kept."""
        path = self._files.get(f"{call:06d}")
        if path is None:
            return None
        file = SafetensorsFile(path)
        try:
            return {name: file.read(name) for name in file.tensors}
        finally:
            file.close()

    def keep_answer(self, call: int, answer: Mapping[str, torch.Tensor]) -> None:
        """Keeps what a component answered.

        Raises:
            StorageError: The disk refused.
        """
        from safetensors.torch import save

        # Safetensors refuses tensors that share memory.
        copies = {
            n: t.detach().clone(memory_format=torch.contiguous_format) for n, t in answer.items()
        }
        self._write(f"{call:06d}", save(copies), ".safetensors")


class SampleCheckpoint(KeptAnswers):
    """The folder of one sample.

    Args:
        folder: Made where it is missing. What is in it is checked, and removed where it is damaged.
        seal: What is kept in it.

    Raises:
        StorageError: The disk refused.
    """

    def __init__(self, folder: Path, seal: Seal) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as bad:
            raise StorageError(f"{quoted(folder)}: {bad.strerror or bad}") from bad
        super().__init__(folder, seal)
        kept = sorted(part for part in self._files if part.startswith("observed-"))
        for part in kept[:-1]:  # a kill came before these went
            self._drop(part)
        if kept and any(f"{call:06d}" not in self._files for call in range(_call_of(kept[-1]) + 1)):
            self._drop(kept[-1])  # without all answers before it, it cannot be come to again
            self.damage = self.damage or "an answer before the statistics is missing"

    def _is_ours(self, name: str) -> bool:
        del name
        return True  # the whole folder is its own

    @property
    def finished(self) -> Ranges | None:
        """The statistics of the whole sample; None where it is not finished."""
        path = self._files.get(_FINISHED)
        return None if path is None else load_ranges(path)

    @property
    def is_finished(self) -> bool:
        """Whether the statistics of the whole sample are kept."""
        return _FINISHED in self._files

    def observed(self) -> tuple[int, Ranges] | None:
        """The last call that statistics are kept of, and the statistics; None without."""
        part = self._observed
        return None if part is None else (_call_of(part), load_ranges(self._files[part]))

    @property
    def _observed(self) -> str | None:
        return next((part for part in self._files if part.startswith("observed-")), None)

    def keep_observed(self, call: int, ranges: Ranges) -> None:
        """Keeps the statistics after a call, in place of earlier ones.

        Raises:
            StorageError: The disk refused.
        """
        earlier = self._observed
        part = f"observed-{call:06d}"
        self._write(part, dump_ranges(ranges), ".qdx")
        if earlier not in {None, part}:
            self._drop(earlier)

    def keep_finished(self, ranges: Ranges) -> None:
        """Keeps the statistics of the whole sample; the answers stay, for those who replay them.

        Raises:
            StorageError: The disk refused.
        """
        self._write(_FINISHED, dump_ranges(ranges), ".qdx")
        self._drop(self._observed)

    def _drop(self, part: str | None) -> None:
        if part is not None:
            self._files.pop(part).unlink(missing_ok=True)


def _call_of(part: str) -> int:
    return int(part.removeprefix("observed-"))
