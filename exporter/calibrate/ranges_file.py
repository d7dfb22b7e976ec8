"""The file of ranges: one safetensors file with provenance and index as JSON in its metadata.

For every graph: numbers, extremes, exponents and histograms as [activations, groups, ...], and what was
kept of channels as [groups, channels of all activations in a row].
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch

from qdx.exporter.calibrate.histogram import BINS, EXPONENTS
from qdx.exporter.calibrate.provenance import SCHEMA, Contents, GraphRecord
from qdx.exporter.calibrate.ranges import GraphRanges, Ranges
from qdx.exporter.calibrate.ranges_header import opened_ranges
from qdx.exporter.calibrate.statistics import TensorStatistics
from qdx.exporter.errors import InvalidInput, quoted
from qdx.exporter.files import replace_file
from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile

__all__ = ["dump_ranges", "load_ranges", "save_ranges"]

_SCALARS: Final = {
    "count": torch.int64,
    "minimum": torch.float32,
    "maximum": torch.float32,
    "exponent": torch.int64,
}
_CHANNELS: Final = {
    "channel_minimum": torch.float32,
    "channel_maximum": torch.float32,
    "channel_sum": torch.float64,
}
_FACTORS: Final = "smoothing"
_COUNTS: Final = (torch.int32, torch.int64)
_HINT: Final = "the file is damaged or was altered; calibrate again"


def dump_ranges(ranges: Ranges) -> bytes:
    """The bytes of the file; the same ranges give the same ones."""
    from safetensors.torch import save as to_safetensors

    tensors: dict[str, torch.Tensor] = {}
    records: dict[str, GraphRecord] = {}
    for where, graph in sorted(ranges.graphs.items()):
        records[where] = GraphRecord(
            timesteps=graph.timesteps,
            boundaries=graph.boundaries,
            channels=tuple(one.channels for one in graph.tensors),
            axes=tuple(one.axis for one in graph.tensors),
            ports={key: dict(ports) for key, ports in graph.ports.items()},
            smoothed={key: len(factors) for key, factors in sorted(graph.factors.items())},
            timestep_input=graph.timestep_input,
            rotated=dict(sorted(graph.rotated.items())),
        )
        tensors |= {f"{where}.{name}": value for name, value in _stacked(graph).items()}
        if graph.factors:
            factors = [one for _, one in sorted(graph.factors.items())]
            tensors[f"{where}.{_FACTORS}"] = torch.cat(factors)
    contents = Contents(provenance=ranges.provenance, graphs=records)
    data: bytes = to_safetensors(tensors, metadata={SCHEMA: contents.dump()})
    return data


def save_ranges(ranges: Ranges, path: Path | str) -> None:
    """Writes the file; an older one of that name stays whole until the new one is.

    Raises:
        StorageError: The disk refused.
    """
    replace_file(Path(path), dump_ranges(ranges))


def load_ranges(path: Path | str) -> Ranges:
    """Reads a file that `save_ranges` wrote, or refuses it.

    Raises:
        InvalidInput: The file is missing, damaged, altered or of another version.
        StorageError: Reading failed.
    """
    path = Path(path)
    with opened_ranges(path) as (file, contents):
        graphs = {where: _graph(file, where, record) for where, record in contents.graphs.items()}
        expected = {f"{where}.{name}" for where in graphs for name in (*_SCALARS, *_CHANNELS, "histogram")}  # fmt: skip
        expected |= {f"{where}.{_FACTORS}" for where, graph in graphs.items() if graph.factors}
        if extra := sorted(file.tensors.keys() - expected):
            raise InvalidInput(
                f"{quoted(path)}: tensor {quoted(extra[0])} is not expected", hint=_HINT
            )
        return Ranges(graphs, contents.provenance)


def _stacked(graph: GraphRanges) -> dict[str, torch.Tensor]:
    """The tensors of one graph by name."""
    groups, tensors = len(graph.boundaries) + 1, graph.tensors
    if not tensors:
        empty = {name: torch.zeros((0, groups), dtype=kind) for name, kind in _SCALARS.items()}
        none = {name: torch.zeros((groups, 0), dtype=kind) for name, kind in _CHANNELS.items()}
        counts = torch.zeros((0, groups, BINS), dtype=_COUNTS[0])
        return {**empty, **none, "histogram": counts}
    small = max(int(one.histogram.max()) for one in tensors) <= torch.iinfo(_COUNTS[0]).max
    kind = _COUNTS[0] if small else _COUNTS[1]
    return {
        **{name: torch.stack([getattr(one, name) for one in tensors]) for name in _SCALARS},
        **{name: torch.cat([getattr(one, name) for one in tensors], dim=1) for name in _CHANNELS},
        "histogram": torch.stack([one.histogram.to(kind) for one in tensors]),
    }


def _graph(file: SafetensorsFile, where: str, record: GraphRecord) -> GraphRanges:
    """One graph, every number of it checked."""
    count, groups, channels = len(record.channels), record.groups, sum(record.channels)
    read = {
        name: _read(file, where, name, (kind,), (count, groups)) for name, kind in _SCALARS.items()
    }
    read |= {
        name: _read(file, where, name, (kind,), (groups, channels))
        for name, kind in _CHANNELS.items()
    }
    read["histogram"] = _read(file, where, "histogram", _COUNTS, (count, groups, BINS)).to(
        torch.int64
    )
    _check_values(read, f"{quoted(file.path)}: {quoted(where)}")
    sizes = list(record.channels)
    parts = {name: torch.split(read[name], sizes, dim=1) for name in _CHANNELS}
    tensors = tuple(
        TensorStatistics(
            axis=record.axes[index],
            histogram=read["histogram"][index],
            **{name: read[name][index] for name in _SCALARS},
            **{name: parts[name][index] for name in _CHANNELS},
        )
        for index in range(count)
    )
    factors = _factors(file, where, record) if record.smoothed else {}
    return GraphRanges(
        record.timesteps,
        record.boundaries,
        tensors,
        record.ports,
        factors,
        record.timestep_input,
        record.rotated,
    )


def _factors(file: SafetensorsFile, where: str, record: GraphRecord) -> dict[str, torch.Tensor]:
    """Smoothing factors by key of the site, every one of them checked."""
    keys = sorted(record.smoothed)
    sizes = [record.smoothed[key] for key in keys]
    values = _read(file, where, _FACTORS, (torch.float32,), (sum(sizes),))
    if not bool((torch.isfinite(values) & (values > 0)).all()):
        raise InvalidInput(
            f"{quoted(file.path)}: {quoted(where)}: a smoothing factor is not a positive number",
            hint=_HINT,
        )
    return dict(zip(keys, torch.split(values, sizes), strict=True))


def _read(
    file: SafetensorsFile,
    where: str,
    name: str,
    kinds: tuple[torch.dtype, ...],
    shape: tuple[int, ...],
) -> torch.Tensor:
    full = f"{where}.{name}"
    stored = file.tensors.get(full)
    if stored is None:
        raise InvalidInput(f"{quoted(file.path)}: tensor {quoted(full)} is missing", hint=_HINT)
    wanted = [str(kind).removeprefix("torch.") for kind in kinds]
    if stored.dtype not in wanted or stored.shape != shape:
        raise InvalidInput(
            f"{quoted(file.path)}: tensor {quoted(full)} is {stored.dtype} {list(stored.shape)}, "
            f"expected {' or '.join(wanted)} {list(shape)}",
            hint=_HINT,
        )
    return file.read(full)


def _check_values(read: Mapping[str, torch.Tensor], place: str) -> None:
    """Refuses numbers that no calibration writes."""
    floats = (*_CHANNELS, "minimum", "maximum")
    low, high, exponent = read["minimum"], read["maximum"], read["exponent"]
    count, sampled = read["count"], read["histogram"].sum(dim=-1)
    known = ((exponent >= EXPONENTS[0]) & (exponent <= EXPONENTS[1])).all()
    reach = torch.from_numpy(np.ldexp(1.0, exponent.clamp(*EXPONENTS).numpy()))
    checks = {
        "an extreme, or a sum of channels, is not finite": all(
            bool(torch.isfinite(read[name]).all()) for name in floats
        ),
        "a number of values is negative": bool((read["histogram"] >= 0).all()),
        "a histogram holds more values than were counted, or none of them": bool(
            ((sampled <= count) & ((sampled > 0) == (count > 0))).all()
        ),
        "a minimum is above its maximum": bool((low <= high).all())
        and bool((read["channel_minimum"] <= read["channel_maximum"]).all()),
        f"an exponent is outside of {EXPONENTS[0]} to {EXPONENTS[1]}": bool(known),
        "an extreme is outside of its histogram": bool(((low >= -reach) & (high < reach)).all()),
    }
    for fault, passed in checks.items():
        if not passed:
            raise InvalidInput(f"{place}: {fault}", hint=_HINT)
