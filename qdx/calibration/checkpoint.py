"""What is kept of a sample under way, so that the same command goes on where it was interrupted.

    sample-003/
        000012-<SHA-256>.safetensors    what a component answered in call 12
        observed-000045.qdx             the statistics after call 45, as a file of ranges
        finished.qdx                    the statistics of the whole sample

Going on, the pipeline's own Python runs again from the start and is given the answers that are kept; nothing
is computed twice, and nothing of the pipeline's state need be saved. Every file is written aside and renamed.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch

from qdx.exporter.calibrate.ranges import Ranges
from qdx.exporter.errors import InvalidInput, StorageError, quoted
from qdx.exporter.files import sha256_file
from qdx.exporter.graph.safetensors_file import SafetensorsFile

__all__ = ["SampleCheckpoint"]

_ANSWER: Final = re.compile(r"(\d{6})-([0-9a-f]{64})\.safetensors")
_OBSERVED: Final = re.compile(r"observed-(\d{6})\.qdx")
_FINISHED: Final = "finished.qdx"


class SampleCheckpoint:
    """The folder of one sample.

    Args:
        folder: Made where it is missing. What is in it is checked, and removed where it is damaged.

    Attributes:
        damage: What was wrong with what was kept; empty otherwise.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.damage = ""
        self._answers: dict[int, Path] = {}
        self._observed: tuple[int, Path] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._read()
        except InvalidInput as error:
            self.damage = error.message
            shutil.rmtree(folder)
            folder.mkdir()
            self._answers, self._observed = {}, None
        except OSError as bad:
            raise StorageError(f"{quoted(folder)}: {bad.strerror or bad}") from bad

    def _read(self) -> None:
        latest = None
        for path in sorted(self._folder.iterdir()):
            if found := _ANSWER.fullmatch(path.name):
                if sha256_file(path, error=InvalidInput) != found[2]:
                    raise InvalidInput(f"{quoted(path.name)}: does not have its SHA-256")
                self._answers[int(found[1])] = path
            elif found := _OBSERVED.fullmatch(path.name):
                latest = int(found[1]), path
            elif path.name.endswith(".partial"):
                path.unlink()
        if latest is not None:
            missing = [call for call in range(latest[0] + 1) if call not in self._answers]
            if missing:
                raise InvalidInput(f"the answer to call {missing[0]} is missing")
            Ranges.load(latest[1])
            self._observed = latest
        if (self._folder / _FINISHED).exists():
            Ranges.load(self._folder / _FINISHED)

    @property
    def finished(self) -> Ranges | None:
        """The statistics of the whole sample; None where it is not finished."""
        path = self._folder / _FINISHED
        return Ranges.load(path) if path.exists() else None

    def observed(self) -> tuple[int, Ranges] | None:
        """The last call that statistics are kept of, and the statistics; None without."""
        if self._observed is None:
            return None
        return self._observed[0], Ranges.load(self._observed[1])

    def answer(self, call: int) -> dict[str, torch.Tensor] | None:
        """What a component answered in a call, by name of the output; None where it is not kept."""
        path = self._answers.get(call)
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

        copies = {
            n: t.detach().clone(memory_format=torch.contiguous_format) for n, t in answer.items()
        }
        data = save(copies)  # which refuses tensors that share memory
        path = self._folder / f"{call:06d}-{hashlib.sha256(data).hexdigest()}.safetensors"
        staged = path.with_suffix(".partial")
        try:
            staged.write_bytes(data)
            staged.replace(path)
        except OSError as bad:
            staged.unlink(missing_ok=True)
            raise StorageError(f"{quoted(path)}: {bad.strerror or bad}") from bad
        self._answers[call] = path

    def keep_observed(self, call: int, ranges: Ranges) -> None:
        """Keeps the statistics after a call, in place of earlier ones.

        Raises:
            StorageError: The disk refused.
        """
        path = self._folder / f"observed-{call:06d}.qdx"
        ranges.save(path)
        if self._observed is not None and self._observed[1] != path:
            self._observed[1].unlink(missing_ok=True)
        self._observed = call, path

    def keep_finished(self, ranges: Ranges) -> None:
        """Keeps the statistics of the whole sample; the answers stay, for those who replay them.

        Raises:
            StorageError: The disk refused.
        """
        ranges.save(self._folder / _FINISHED)
        if self._observed is not None:
            self._observed[1].unlink(missing_ok=True)
            self._observed = None
