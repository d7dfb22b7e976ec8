"""Kinds of components: what each does in its pipeline, found from the calls of a dry run. No name decides.

A call is told a number where an argument is one, or a tensor with one number for each example: a timestep, mostly.

* `denoiser`: is told a number, and every output is like one of the inputs, in all sizes but that of the channels: it
  predicts noise, a sample or an embedding for what it is given. Priors, decoders of embeddings and models that enlarge are
  denoisers too. What answers so and is read by another such call as it is, is none.
* `control`: is told a number while the denoisers run, or answers with what a denoiser reads as it is: a ControlNet.
* `decoder`: is called behind the last call of a denoiser; also an autoencoder that encodes before.
* `text_encoder`: reads whole numbers, tokens, before that.
* `encoder`: all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from qdx.exporter.capture.calls import CallRecord
    from qdx.exporter.graph.ir.kind import Kind

__all__ = ["component_kinds"]

_CHANNELS: Final[Mapping[int, tuple[int, ...]]] = {2: (1,), 3: (2,), 4: (1,), 5: (1, 2)}
"""Where channels stand, by the number of dimensions: of embeddings, tokens, pictures and videos."""


def component_kinds(records: Sequence[CallRecord]) -> dict[str, Kind]:
    """Returns what each component does that a pipeline calls; empty where nothing denoises.

    Args:
        records: Every call of one run, in order.
    """
    calls: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        calls.setdefault(record.component, []).append(index)
    told = {name for name in calls if any(_told(records[n]) for n in calls[name])}
    read = {name: {r.component for r in records if name in r.reads} for name in told}
    denoisers = {
        name
        for name in told
        if any(_told(records[n]) and _answers_alike(records[n]) for n in calls[name])
        and not read[name] & (told - {name})
    }
    if not denoisers:
        return {}
    steps = [index for name in denoisers for index in calls[name]]
    first, last = min(steps), max(steps)

    def kind(name: str) -> Kind:
        if name in denoisers:
            return "denoiser"
        if name in told and (read[name] & denoisers or any(first < n < last for n in calls[name])):
            return "control"
        if calls[name][-1] > last:
            return "decoder"
        return "text_encoder" if any(_reads_tokens(records[n]) for n in calls[name]) else "encoder"

    return {name: kind(name) for name in calls}


def _told(record: CallRecord) -> bool:
    return any(_is_number(leaf) for leaf in record.leaves.values())


def _is_number(leaf: Any) -> bool:
    if isinstance(leaf, torch.Tensor):
        return leaf.dim() <= 1 and leaf.dtype != torch.bool
    return isinstance(leaf, int | float) and not isinstance(leaf, bool)


def _answers_alike(record: CallRecord) -> bool:
    given = [tuple(t.shape) for t in record.tensors().values() if t.is_floating_point()]
    return bool(record.outputs) and all(
        any(_alike(output, one) for one in given) for output in record.outputs
    )


def _alike(output: tuple[int, ...], given: tuple[int, ...]) -> bool:
    """Whether two shapes differ in channels at most."""
    if len(output) != len(given):
        return False
    differing = [
        n for n, (one, other) in enumerate(zip(output, given, strict=True)) if one != other
    ]
    return not differing or (len(differing) == 1 and differing[0] in _CHANNELS.get(len(output), ()))


def _reads_tokens(record: CallRecord) -> bool:
    return any(
        tensor.dim() > 1 and not tensor.is_floating_point() and tensor.dtype != torch.bool
        for tensor in record.tensors().values()
    )
