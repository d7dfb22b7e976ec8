"""The plan as data: models of schema `qdx.plan/1`.

Unknown keys are errors, nothing is converted, and every value is immutable. What later versions of
qdx will read (activations, roles, timesteps, calibration) is refused until it is implemented.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from qdx.exporter.strict_json import position_of

__all__ = [
    "SCHEMA",
    "ComponentGates",
    "Gates",
    "PipelineGates",
    "Plan",
    "Rule",
    "Select",
    "Weights",
    "json_schema",
]

SCHEMA: Final = "qdx.plan/1"
RULES_LIMIT: Final = 1000

FloatDtype = Literal["float32", "float16", "bfloat16"]
# Component names are Python identifiers; a glob adds `*` (any run) and `?` (any one character).
Glob = Annotated[str, Field(pattern=r"^[A-Za-z0-9_*?]+$", max_length=128)]
Words = Annotated[str, Field(min_length=1, max_length=1000)]
Decibels = Annotated[float, Field(ge=0, le=200, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Select(_Model):
    """What a rule applies to. A key that is left out selects everything.

    Attributes:
        component: Glob over the pipeline's component names, such as `unet` or `text_encoder*`.
    """

    component: Glob = "*"


class Weights(_Model):
    """How weights are stored.

    Attributes:
        dtype: The stored type; values are rounded to nearest, ties to even.
    """

    dtype: FloatDtype


class Rule(_Model):
    """One instruction. Rules are read in order; for each component the last that matches decides.

    Attributes:
        id: A name for messages and reports.
        why: The reason, for the reader.
        select: What the rule applies to.
        weights: How the weights of that are stored.
    """

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=64)] | None = None
    why: Words | None = None
    select: Select = Select()
    weights: Weights


class ComponentGates(_Model):
    """Bounds for each component, on the inputs that the reference pipeline gives it.

    Attributes:
        sqnr_db_min: Least signal-to-quantization-noise ratio of every output against the float32
            reference, in decibels: 10 log10(sum(reference^2) / sum((output - reference)^2)).
    """

    sqnr_db_min: Decibels


class PipelineGates(_Model):
    """Bounds for the finished pictures, same seed and same prompt.

    Attributes:
        psnr_db_min: Least peak signal-to-noise ratio against the reference picture, in decibels.
        ssim_min: Least structural similarity against the reference picture, from 0 to 1.
    """

    psnr_db_min: Decibels
    ssim_min: Ratio


class Gates(_Model):
    """The acceptance test that an artifact carries.

    Attributes:
        component: Bounds for each component.
        pipeline: Bounds for the finished pictures.
    """

    component: ComponentGates
    pipeline: PipelineGates


class Plan(_Model):
    """What precision is wanted where, and what counts as accepted.

    Attributes:
        schema_: The format, `qdx.plan/1`; the key in JSON is `schema`.
        name: A short name.
        description: What the plan is for.
        rules: Ordered rules; later ones win.
        gates: The acceptance test.
    """

    model_config = ConfigDict(title=SCHEMA, validate_by_name=False, validate_by_alias=True)

    schema_: Literal["qdx.plan/1"] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=64)] | None = None
    description: Words | None = None
    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=RULES_LIMIT)]
    gates: Gates

    _source: str = PrivateAttr(default="plan")
    _text: str = PrivateAttr(default="")

    def place(self, *path: str | int) -> str:
        """Returns where a part of the plan was written, as `file:line:column` where known.

        >>> parse_plan(text, source="w.json").place("rules", 1)
        'w.json:9:5'
        """
        if self._text:
            return f"{self._source}:{position_of(self._text, path)}"
        return f"{self._source}: {dotted(path)}"

    def to_json(self) -> dict[str, Any]:
        """Returns the plan as plain JSON data, without what was left out; for manifests."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def dotted(path: tuple[str | int, ...]) -> str:
    """Returns a path of keys and indices as people write it, such as `rules[0].weights.dtype`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "the plan"


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema of plans, for editors; `plan.schema.json` holds a copy.

    It is weaker than the loader, which also refuses duplicate keys and numbers out of range.
    """
    schema = Plan.model_json_schema(by_alias=True)
    # The docstrings of the models are for readers of the code.
    for part in (schema, *schema["$defs"].values()):
        part.pop("description", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
