"""Rules: what is selected, and what is asked for it."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from qdx.exporter.graph.ir.kind import Kind
from qdx.exporter.plan.schema.model import Name, PlanModel, Ratio, Words
from qdx.exporter.plan.schema.scheme import AskedFloat, AskedInputs, AskedWeights

__all__ = ["SITE_KEYS", "Rule", "Select", "matcher", "matches"]

_GLOBS_LIMIT: Final = 64
# Names of components are Python identifiers; a glob adds `*` (any run) and `?` (any character).
_COMPONENT: Final = r"^[A-Za-z0-9_*?]+$"
# Keys of sites have dots between modules, and `#2` for a second call of a module.
_SITE: Final = r"^[A-Za-z0-9_.#*?]+$"


def _as_tuple(value: Any) -> Any:
    # A list of JSON arrives here as a list, which strict validation would not take as a tuple.
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _as_written(globs: tuple[str, ...]) -> str | list[str]:
    return globs[0] if len(globs) == 1 else list(globs)


def _schema_of(pattern: str, length: int) -> dict[str, Any]:
    glob = {"type": "string", "pattern": pattern, "minLength": 1, "maxLength": length}
    return {
        "anyOf": [
            glob,
            {"type": "array", "items": glob, "minItems": 1, "maxItems": _GLOBS_LIMIT},
        ]
    }


ComponentGlobs = Annotated[
    tuple[Annotated[str, Field(pattern=_COMPONENT, max_length=128)], ...],
    Field(min_length=1, max_length=_GLOBS_LIMIT),
    BeforeValidator(_as_tuple),
    PlainSerializer(_as_written),
    WithJsonSchema(_schema_of(_COMPONENT, 128)),
]
SiteGlobs = Annotated[
    tuple[Annotated[str, Field(pattern=_SITE, max_length=256)], ...],
    Field(min_length=1, max_length=_GLOBS_LIMIT),
    BeforeValidator(_as_tuple),
    PlainSerializer(_as_written),
    WithJsonSchema(_schema_of(_SITE, 256)),
]
_KIND: Final = {"enum": list(get_args(Kind)), "type": "string"}
Kinds = Annotated[
    tuple[Kind, ...],
    Field(min_length=1, max_length=len(_KIND["enum"])),
    BeforeValidator(_as_tuple),
    PlainSerializer(_as_written),
    WithJsonSchema({"anyOf": [_KIND, {"type": "array", "items": _KIND, "minItems": 1}]}),
]
Timesteps = Annotated[tuple[Ratio, ...], Field(min_length=2, max_length=2)]

SITE_KEYS: Final = ("name", "op", "role", "stage")
"""Keys of a selection that speak of single operations."""


def matches(text: str, globs: Sequence[str] | None) -> bool:
    """Whether one of some globs matches the whole text; no globs at all match everything.

    A plain `*` crosses dots: `down_blocks.*.to_q` selects every `to_q` below `down_blocks`.
    """
    return globs is None or matcher(tuple(globs))(text)


@lru_cache(maxsize=65536)
def matcher(globs: tuple[str, ...]) -> Callable[[str], bool]:
    """Returns `matches` for some globs, compiled: a plan may have a rule for every operation."""
    if not any("*" in glob or "?" in glob for glob in globs):
        return frozenset(globs).__contains__
    pattern = re.compile("|".join(map(fnmatch.translate, globs)))
    return lambda text: pattern.match(text) is not None


class Select(PlanModel):
    """What a rule applies to. Each key takes a glob or a list of globs, of which one must match.

    A key that is left out selects everything; where several are given, all must match.

    Attributes:
        component: The pipeline's component, such as `unet` or `text_encoder*`.
        kind: What the component is in the pipeline, found by running it dry: `denoiser`, `control`,
            `text_encoder`, `encoder` or `decoder`.
        name: Key of the operation: the fully qualified name of its module in the component.
        op: Kind of operation, such as `conv2d`, `linear`, `qk`.
        role: What the operation is for, such as `first`, `attn.q`, `time_embed`.
        stage: Where it stands, such as `down.0`, `mid`, `block.17`.
        timesteps: From and to, as fractions of the schedule: 0 is the noisiest step, 1 the end.
    """

    component: ComponentGlobs = ("*",)
    kind: Kinds | None = None
    name: SiteGlobs | None = None
    op: SiteGlobs | None = None
    role: SiteGlobs | None = None
    stage: SiteGlobs | None = None
    timesteps: Timesteps | None = None

    @property
    def everything(self) -> bool:
        """Whether all operations of all components are selected."""
        return self.by_component and self.kind is None and "*" in self.component

    def takes(self, component: str, kind: str | None) -> bool:
        """Whether it selects a component, or some of its operations.

        Args:
            component: Its name.
            kind: What it does, as `capture` found it; None where that is not known, which no kind selects.
        """
        return matches(component, self.component) and (self.kind is None or kind in self.kind)

    @property
    def by_component(self) -> bool:
        """Whether whole components are selected, not single operations of them."""
        return self.timesteps is None and all(getattr(self, key) is None for key in SITE_KEYS)


class Rule(PlanModel):
    """One instruction. Rules are read in order; for each part the last that matches decides.

    The parts are `weights` and `inputs`; `keep` sets both.

    Attributes:
        id: A name for messages and reports.
        why: The reason, for the reader.
        select: What the rule applies to.
        weights: How the weights of what is selected are stored.
        inputs: How the inputs of what is selected are quantized.
        keep: Weights stored in this float type, and inputs left alone; `float` is the type that the target chooses.
        when: `always` does it wherever the target can; `faster` leaves an operation float for which
            the target's kernel of these types is no faster than its float one. None does it always, but for
            inputs that the target would rather have float, such as those of attention.
    """

    id: Name | None = None
    why: Words | None = None
    select: Select = Select()
    weights: AskedWeights | None = None
    inputs: AskedInputs | None = None
    keep: AskedFloat | None = None
    when: Literal["always", "faster"] | None = None

    @property
    def quantizes(self) -> bool:
        """Whether anything beside float storage is asked for."""
        return any(part is not None and part.quantized for part in (self.weights, self.inputs))

    @property
    def asked_weights(self) -> AskedWeights | None:
        """What the rule asks for weights; None where it leaves them to other rules."""
        return AskedWeights(dtype=self.keep) if self.keep is not None else self.weights

    @property
    def asked_inputs(self) -> AskedInputs | None:
        """What the rule asks for inputs; None where it leaves them to other rules."""
        return AskedInputs(dtype="float32") if self.keep is not None else self.inputs
