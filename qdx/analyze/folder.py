"""An analysis in its folder: `analysis.json`, and the noise by call beside it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from qdx.analyze.analysis import ANALYSIS_FILE, NOISE_FILE, Analysis
from qdx.analyze.analysis_file import AGAIN, parse_analysis
from qdx.exporter.errors import InvalidInput, StorageError, quoted
from qdx.exporter.files import replace_file, sha256_file
from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile
from qdx.exporter.strict_json import dump_json

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "NoiseByCall",
    "digest_of_noise",
    "mean_of",
    "noise_file",
    "read_analysis",
    "write_analysis",
]

NoiseByCall = Mapping[str, torch.Tensor]
"""The tensors of the file beside the analysis by name; see `analysis`."""


def noise_file(arrays: NoiseByCall) -> bytes:
    """The numbers by call as a file; the same arrays are the same bytes."""
    from safetensors.torch import save

    return bytes(save({name: arrays[name].contiguous() for name in sorted(arrays)}))


def write_analysis(analysis: Analysis, noise: bytes, folder: Path) -> None:
    """Writes an analysis; the JSON last, by which it counts.

    Raises:
        StorageError: The disk refused.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as bad:
        raise StorageError(f"{quoted(folder)}: {bad.strerror or bad}") from bad
    replace_file(folder / NOISE_FILE, noise)
    replace_file(folder / ANALYSIS_FILE, dump_json(analysis.to_json()))


def read_analysis(folder: Path | str) -> tuple[Analysis, NoiseByCall]:
    """Reads an analysis.

    Args:
        folder: What `qdx analyze` wrote.

    Raises:
        InvalidInput: There is none, it is damaged, or its files do not belong together.
        StorageError: Reading failed.
    """
    place = Path(folder)
    analysis, _ = parse_analysis(place)
    return analysis, _read_noise(place / NOISE_FILE, analysis)


def _read_noise(path: Path, analysis: Analysis) -> NoiseByCall:
    if not path.is_file():
        raise InvalidInput(f"{quoted(path)}: missing beside the analysis", hint=AGAIN)
    if sha256_file(path) != analysis.noise.sha256:
        raise InvalidInput(f"{quoted(path)}: is not that of the analysis", hint=AGAIN)
    file = SafetensorsFile(path)
    try:
        found = {name: file.read(name) for name in file.tensors}
    finally:
        file.close()
    options, measures = len(analysis.options), len(analysis.noise.measures)
    expected: dict[str, Sequence[int]] = {}
    for where in analysis.wheres:
        groups, calls = len(analysis.groups_of(where)), len(analysis.calls_of(where))
        expected[f"single.{where}"] = (groups, options, calls, measures)
        expected[f"cumulative.{where}"] = (options, calls, measures)
        for name in ("errors", "guidance_errors"):
            own = found.get(f"{name}.{where}")
            width = own.shape[-1] if own is not None and own.dim() else 0
            expected[f"{name}.{where}"] = (groups, options, width)
    shapes = {name: tuple(one.shape) for name, one in found.items()}
    wrong = [name for name, one in found.items() if one.dtype != _dtype(name)]
    if shapes != expected or wrong:
        raise InvalidInput(f"{quoted(path)}: holds {shapes}, expected {expected}", hint=AGAIN)
    return found


def _dtype(name: str) -> torch.dtype:
    return torch.float32 if "errors" in name else torch.float64


def digest_of_noise(noise: bytes) -> str:
    """SHA-256 of the file."""
    return hashlib.sha256(noise).hexdigest()


def mean_of(values: torch.Tensor, weights: torch.Tensor) -> float | None:
    """The mean over calls, of those that have a number; None where none has."""
    there = ~values.isnan()
    if not bool(there.any()):
        return None
    found = float((values[there] * weights[there]).sum() / weights[there].sum())
    return found if math.isfinite(found) else None
