"""`analysis.json`: what each part of a model tolerates on a target, as strict data. Imports no torch.

Numbers by call stand beside it in `noise.safetensors`, not a number where nothing was measured:

    single.<where>           float64 [groups of the graph, options, calls of the graph, measures]
    cumulative.<where>       float64 [options, calls of the graph, measures]
    errors.<where>           float32 [groups of the graph, options, dimensions]
    guidance_errors.<where>  float32 [groups of the graph, options, dimensions]

Groups, options and calls are in the order of the lists here, those of one graph without the others'. Errors are those of
single options, all calls side by side, each over the norm of what it is an error of and with the root of the call's
weight: the squared norm of a row is the mean noise, and the inner product of two rows says whether they add up. Where
calls answer many numbers, errors are folded into fewer dimensions, which keep norms, and inner products about.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, JsonValue, model_validator

from qdx.analyze.ablation_data import Ablations
from qdx.analyze.fields import Count, Index, NotNegative, Sha256, Where
from qdx.analyze.gradient_data import Gradients
from qdx.analyze.latency_table import Latency
from qdx.analyze.noise_data import MEASURES, Branch, MeanNoise, MeasuredCall, Noise
from qdx.analyze.trajectory_data import Missing, Trajectory
from qdx.exporter.plan.resolve.feasibility import Support
from qdx.exporter.plan.schema.scheme import AskedInputs, AskedWeights
from qdx.exporter.strict_model import StrictModel

__all__ = [
    "ANALYSIS_FILE",
    "FLOAT_OPTION",
    "MEASURES",
    "NOISE_FILE",
    "SCHEMA",
    "Analysis",
    "AnalyzedModel",
    "AnalyzedTarget",
    "Branch",
    "Group",
    "MeanNoise",
    "MeasuredCall",
    "Noise",
    "Offered",
    "Option",
    "PlanBase",
    "Sampling",
]

SCHEMA: Final = "qdx.analysis/1"
ANALYSIS_FILE: Final = "analysis.json"
NOISE_FILE: Final = "noise.safetensors"
_NEAR: Final = 1e-6
"""How far weights may lie from 1: they are shares, added up in floats."""
FLOAT_OPTION: Final = 0
"""The option that every group has: the target's float type."""
Key = Annotated[str, Field(min_length=1, max_length=512)]


class AnalyzedModel(StrictModel):
    """The pipeline.

    Attributes:
        pipeline_class: Of diffusers.
        files: SHA-256 of every file that was read, by relative path, and of adapters merged into it.
        setup: Methods that were called on the pipeline when it was built, with their arguments.
    """

    pipeline_class: str
    files: dict[str, Sha256]
    setup: tuple[dict[str, dict[str, JsonValue]], ...] = ()


class AnalyzedTarget(StrictModel):
    """The target.

    Attributes:
        name: Its name.
        profile: SHA-256 of its profile as JSON.
    """

    name: str
    profile: Sha256


class PlanBase(StrictModel):
    """The plan that the options replace rules of.

    Attributes:
        name: Its name; empty for one without.
        plan: SHA-256 of it as JSON, without gates and words.
    """

    name: str
    plan: Sha256


class Sampling(StrictModel):
    """The runs that the measured calls come from.

    Attributes:
        call: The pipeline call, as bundles record it.
        images: SHA-256 of the pictures and tensors in it.
        prompts: SHA-256 of the prompts in order; null where the call's own was used.
        samples: Number of runs.
        steps: Denoising steps of each; null where the pipeline takes no number of steps.
        seed: Of the first run; the next ones follow.
    """

    call: dict[str, JsonValue]
    images: Sha256
    prompts: Sha256 | None
    samples: Count
    steps: Count | None
    seed: Index


class Option(StrictModel):
    """A way to store weights and to quantize inputs that plans can ask for.

    Attributes:
        id: Its place in the list.
        label: For tables, such as `int8 channel / int8 tensor`.
        weights: Scheme of weights, as a plan asks it; null leaves them float.
        inputs: Scheme of inputs likewise.
        simulated: Whether it was measured also where the target does not have it: what it would do to the numbers, no more.
            The form of each offer says where.
    """

    id: Index
    label: str
    weights: AskedWeights | None
    inputs: AskedInputs | None
    simulated: bool = False

    @property
    def is_float(self) -> bool:
        """Whether nothing is quantized."""
        return self.weights is None and self.inputs is None


class Offered(StrictModel):
    """What a target makes of an option of a group.

    Attributes:
        option: The option.
        form: What it makes of it; of several sites the least good.
        bytes: What a file holds for the weights of the group, with scales, zero points, tables and low-rank branches.
        macs_low: Multiply-accumulates of one call that run in low precision.
        macs_beside: Those that low-rank branches add in floats.
        slower: Why it is no faster than float; null where it is, or where nobody says so.
        latency_ms: Of one call of the group's operations; null where it was not measured.
    """

    option: Index
    form: Support
    bytes: Index
    macs_low: Index
    macs_beside: Index = 0
    slower: str | None = None
    latency_ms: NotNegative | None = None


class Group(StrictModel):
    """Operations that take the same option, because the target or the model binds them together.

    Attributes:
        id: Its place in the list.
        where: The graph, such as `unet.forward`.
        sites: Keys of the operations, in the graph's order.
        bound_by: Why they go together; empty for one alone.
        op: The operation of the first.
        roles: What they are for, each once.
        stage: Where the first stands; empty outside of all stages.
        weight_elements: Elements of their weights, a shared one counted once.
        macs: Multiply-accumulates of one call.
        offers: The options that it can take, in order; the first is float.
    """

    id: Index
    where: Where
    sites: Annotated[tuple[Key, ...], Field(min_length=1)]
    bound_by: str
    op: str
    roles: Annotated[tuple[str, ...], Field(min_length=1)]
    stage: str
    weight_elements: Index
    macs: Index
    offers: Annotated[tuple[Offered, ...], Field(min_length=1)]

    @property
    def component(self) -> str:
        """The component, such as `unet`."""
        return self.where.partition(".")[0]

    @property
    def options(self) -> tuple[int, ...]:
        """The options that it can take."""
        return tuple(one.option for one in self.offers)

    def offered(self, option: int) -> Offered:
        """What the target makes of an option.

        Raises:
            KeyError: It is not offered.
        """
        found = next((one for one in self.offers if one.option == option), None)
        if found is None:
            raise KeyError(option)
        return found


class Analysis(StrictModel):
    """The whole of it.

    Attributes:
        schema_: The format; the key in JSON is `schema`.
        versions: Of all that computes, by name.
        model: What was analyzed.
        target: For which target.
        plan_base: Upon which plan.
        sampling: On which runs.
        options: The ways to compute that were tried; the first is float.
        groups: What takes them.
        calls: On which calls.
        noise: What came out.
        gradients: Likewise of the backward pass; null where none was made.
        trajectory: Error over the trajectory, or why it could not be followed; null where it was not asked for.
        ablations: Parts of the model left float; null where none were.
        latency: What operations take on the target; null where nothing is known of it.
    """

    model_config = ConfigDict(title=SCHEMA, validate_by_name=False, validate_by_alias=True)

    schema_: Literal["qdx.analysis/1"] = Field(alias="schema")
    versions: dict[str, str]
    model: AnalyzedModel
    target: AnalyzedTarget
    plan_base: PlanBase
    sampling: Sampling
    options: Annotated[tuple[Option, ...], Field(min_length=1)]
    groups: tuple[Group, ...]
    calls: tuple[MeasuredCall, ...]
    noise: Noise
    gradients: Gradients | None = None
    trajectory: Trajectory | Missing | None = None
    ablations: Ablations | None = None
    latency: Latency | None = None

    @model_validator(mode="after")
    def _whole(self) -> Analysis:
        for name in ("options", "groups"):
            ids = [one.id for one in getattr(self, name)]
            if ids != list(range(len(ids))):
                raise ValueError(f"`{name}`: `id` is not the place in the list")
        if not self.options[FLOAT_OPTION].is_float:
            raise ValueError("`options`: the first is not float")
        places: dict[tuple[str, str], int] = {}
        for group in self.groups:
            known = [*dict.fromkeys(group.options)]
            if known != sorted(group.options) or known[0] != FLOAT_OPTION:
                raise ValueError(f"`groups[{group.id}].offers`: expected float and others in order")
            if known[-1] >= len(self.options):
                raise ValueError(f"`groups[{group.id}].offers`: there is no option {known[-1]}")
        for group in self.groups:
            for key in group.sites:
                if places.setdefault((group.where, key), group.id) != group.id:
                    raise ValueError(f"`groups[{group.id}].sites`: `{key}` is of two groups")
        self._check_noise()
        if self.latency is not None and {t.where for t in self.latency.graphs} != set(self.wheres):
            raise ValueError("`latency.graphs`: expected a table of each graph that has groups")
        for place, call in enumerate(self.calls):
            if call.other is not None and not self._is_other(place, call.other):
                raise ValueError(
                    f"`calls[{place}].other`: the call there is not of the other branch"
                )
        return self

    def _check_noise(self) -> None:
        for where in self.wheres:
            weights = sum(call.weight for call in self.calls_of(where))
            if abs(weights - 1) > _NEAR:
                raise ValueError(
                    f"`calls`: those of `{where}` have weights of {weights:g}, not of 1"
                )
        if self.noise.measures != MEASURES:
            raise ValueError(f"`noise.measures`: expected {', '.join(MEASURES)}")
        for row in self.noise.cumulative:
            if row.option >= len(self.options) or row.where not in self.wheres:
                raise ValueError("`noise.cumulative`: an option or a graph that there is not")
        found = set()
        for row in self.noise.single:
            if row.group is None or row.group >= len(self.groups):
                raise ValueError("`noise.single`: a group that there is not")
            group = self.groups[row.group]
            if row.where != group.where or row.option not in group.options:
                raise ValueError(
                    f"`noise.single`: group {row.group} has no option {row.option} in `{row.where}`"
                )
            if (row.group, row.option) in found:
                raise ValueError(
                    f"`noise.single`: group {row.group}, option {row.option} comes twice"
                )
            found.add((row.group, row.option))

    def _is_other(self, place: int, other: int) -> bool:
        return other < len(self.calls) and self.calls[other].other == place

    @property
    def wheres(self) -> tuple[str, ...]:
        """The graphs that have groups, in order."""
        return tuple(dict.fromkeys(group.where for group in self.groups))

    def groups_of(self, where: str) -> tuple[Group, ...]:
        """The groups of a graph: the first dimension of its array of single noise."""
        return tuple(group for group in self.groups if group.where == where)

    def calls_of(self, where: str) -> tuple[MeasuredCall, ...]:
        """The calls of a graph: a dimension of its arrays of noise."""
        return tuple(call for call in self.calls if call.where == where)

    @cached_property
    def single(self) -> Mapping[tuple[int, int], MeanNoise]:
        """Mean noise by group and option."""
        return {(row.group, row.option): row for row in self.noise.single if row.group is not None}

    @cached_property
    def cumulative(self) -> Mapping[tuple[str, int], MeanNoise]:
        """Mean noise of whole graphs by graph and option."""
        return {(row.where, row.option): row for row in self.noise.cumulative}

    def to_json(self) -> dict[str, Any]:
        """It as plain JSON data."""
        return self.model_dump(mode="json", by_alias=True)
