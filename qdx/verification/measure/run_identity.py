"""What a run of the reference depends on, as one digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pydantic import JsonValue

from qdx.cache.facts import computing_versions, images_digest
from qdx.cache.keys import key_of
from qdx.exporter.capture.recorded_call import record_call
from qdx.exporter.capture.setup import Setup
from qdx.exporter.capture.variants import CallSignature
from qdx.exporter.errors import UsageError
from qdx.verification.measure.recorded_run import RUN_SCHEMA
from qdx.verification.measure.samples import RunSpec

__all__ = ["RunIdentity"]


@dataclass(frozen=True)
class RunIdentity:
    """What all runs of one reference have in common: with a call and a seed, it decides their bits.

    Attributes:
        source: SHA-256 of the model's files, by relative path.
        pipeline_class: Of the pipeline.
        graphs: Which calls each graph answers, by `component.method`: they tell variants apart.
        left_out: Components that are not on record.
        setup: Methods that are called before, see `check_setup`.
        keep: How many calls of each method are kept, besides the last.
        device: What computes: `cpu`, or `cuda: NAME` of a GPU.
    """

    source: Mapping[str, str]
    pipeline_class: str
    graphs: Mapping[str, CallSignature]
    left_out: tuple[str, ...]
    keep: int
    device: str = "cpu"
    setup: Setup = ()

    def key(self, spec: RunSpec) -> str | None:
        """The SHA-256 of all that decides what a run does; None for a call that holds more than plain JSON.

        Args:
            spec: The run; its call is complete.
        """
        try:
            call = record_call(spec.call)
        except UsageError:
            return None
        value: dict[str, JsonValue] = {
            "schema": RUN_SCHEMA,
            "source": dict(self.source),
            "pipeline": self.pipeline_class,
            "call": call,
            "setup": [dict(step) for step in self.setup],
            "images": images_digest(spec.call),
            "seed": spec.seed,
            "keep": self.keep,
            "graphs": {where: signature.to_json() for where, signature in self.graphs.items()},
            "left_out": list[JsonValue](sorted(self.left_out)),
            "versions": computing_versions(),
            # The same sum in another order has other bits.
            "threads": torch.get_num_threads(),
            "device": self.device,
        }
        return key_of(value)
