"""What a file of ranges says of itself: where they come from, and which statistics belong to which site.

The schema is closed, like that of plans: an unknown key is an error.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from qdx.exporter.errors import InvalidInput, quoted
from qdx.exporter.files import dump_json, parse_json
from qdx.exporter.limits import RANGES_TENSORS_LIMIT, RANGES_TIMESTEPS_LIMIT
from qdx.exporter.plan.schema.scheme import Rotate

__all__ = ["SCHEMA", "Contents", "GraphRecord", "Guidance", "Prompts", "Provenance"]

SCHEMA: Final = "qdx.ranges/1"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=1)]
Key = Annotated[str, Field(min_length=1, max_length=512)]
Where = Annotated[
    str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}\.[A-Za-z_][A-Za-z0-9_]{0,127}$")
]
Version = Annotated[str, Field(max_length=64)]
Device = Annotated[str, Field(pattern=r"^(cpu|cuda: [ -~]{1,128})$")]
Timesteps = Annotated[tuple[float, ...], Field(max_length=RANGES_TIMESTEPS_LIMIT)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Prompts(_Record):
    """The prompts, without their text: how many were used, and the SHA-256 of them as JSON."""

    count: Count
    sha256: Sha256


class Guidance(_Record):
    """What was seen of classifier-free guidance.

    Attributes:
        copies: Most copies of the latents in one batch.
        calls: Most calls of the denoiser for one step.
    """

    copies: Count
    calls: Count

    def merged(self, other: Guidance) -> Guidance:
        """What was seen in two samples."""
        return Guidance(copies=max(self.copies, other.copies), calls=max(self.calls, other.calls))


class Provenance(_Record):
    """Where ranges come from.

    Attributes:
        qdx: Its version.
        torch: Its version.
        device: What computed: `cpu`, or `cuda: NAME` of a GPU. The same calibration gives the same bits on the same.
        threads: Threads that PyTorch computed each sample with. Samples are computed side by side and merged in
            their order, so that the number of processors leaves no trace.
        pipeline_class: Of diffusers.
        files: SHA-256 of the model's files by relative path.
        call: The pipeline call, as bundles record it.
        samples: Number of pipeline calls; those that would observe no step are left out.
        steps: Denoising steps of each; None where the pipeline takes no number of steps, or chooses it itself.
        observed: Share of the steps that were observed.
        seed: Of the first call; each next one has the next.
        prompts: None where the call's own prompt was used.
        branches: Which branches of guidance were observed.
        guidance: By denoiser.
        smoothing: The share alpha with which activations were smoothed; None for plain ones.
    """

    qdx: Version
    torch: Version
    device: Device = "cpu"
    threads: Count
    pipeline_class: Key
    files: dict[str, Sha256]
    call: dict[str, JsonValue]
    samples: Count
    steps: Count | None
    observed: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0)]
    prompts: Prompts | None
    branches: Literal["both", "conditional", "unconditional"]
    guidance: dict[Where, Guidance]
    smoothing: Annotated[float, Field(ge=0, le=1)] | None = None


class GraphRecord(_Record):
    """The statistics of one graph.

    Attributes:
        timesteps: Those of the schedule in the order in which they came, each once.
        boundaries: Of the groups, see `TimestepGroups`.
        channels: Number of channels of each activation; 0 where they were not observed.
        axes: Their dimension, likewise; null where they were not observed.
        ports: Which activation it is, by port, by key of the site.
        smoothed: Number of factors by key of the sites to smooth; 0 for those that cannot be.
        timestep_input: Name of the graph's input that tells the timestep; null without one.
        rotated: How inputs of sites were rotated, by key of the site; each with its block.
    """

    timesteps: Timesteps
    boundaries: Timesteps
    channels: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=RANGES_TENSORS_LIMIT)
    ]
    axes: tuple[Annotated[int, Field(ge=0, le=16)] | None, ...]
    ports: dict[Key, dict[Key, Annotated[int, Field(ge=0)]]]
    smoothed: dict[Key, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    timestep_input: Key | None
    rotated: dict[Key, Rotate] = Field(default_factory=dict)

    @property
    def groups(self) -> int:
        """Number of groups of timesteps."""
        return len(self.boundaries) + 1

    @model_validator(mode="after")
    def _check(self) -> GraphRecord:
        if len(self.axes) != len(self.channels):
            raise ValueError(f"{len(self.axes)} axes, expected {len(self.channels)}")
        if any(
            (axis is None) != (n == 0) for axis, n in zip(self.axes, self.channels, strict=True)
        ):
            raise ValueError(
                "an activation has an axis without channels or channels without an axis"
            )
        if not all(one > other for one, other in pairwise(self.boundaries)):
            raise ValueError("boundaries do not fall")
        if self.boundaries and self.timestep_input is None:
            raise ValueError("groups of timesteps without an input that tells the timestep")
        if any(one.block is None for one in self.rotated.values()):
            raise ValueError("a rotation without its block")
        largest = max((i for ports in self.ports.values() for i in ports.values()), default=-1)
        if largest >= len(self.channels):
            raise ValueError(f"a port names activation {largest} of {len(self.channels)}")
        return self


class Contents(_Record):
    """The text beside the tensors of a file, which holds it under the name of the schema."""

    provenance: Provenance
    graphs: dict[Where, GraphRecord]

    @classmethod
    def parse(cls, text: str, source: str) -> Contents:
        """Reads what `dump` wrote.

        Raises:
            InvalidInput: Naming the source and the first fault.
        """
        data: Any = parse_json(text, source=source, error=InvalidInput)
        try:
            # Lists become tuples only where the input counts as JSON.
            return cls.model_validate_json(dump_json(data))
        except ValidationError as bad:
            first = bad.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "file"
            raise InvalidInput(
                f"{quoted(source)}: {quoted(place)}: {first['msg']}, expected {SCHEMA}",
                hint="calibrate again with this version of qdx",
            ) from None

    def dump(self) -> str:
        """Canonical JSON."""
        return dump_json(self.model_dump(mode="json")).decode("ascii")
