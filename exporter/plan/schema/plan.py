"""The plan as data: the whole of schema `qdx.plan/1`.

Unknown keys are errors, nothing is converted, and every value is immutable. Everything that the
schema accepts has a meaning; what contradicts itself is refused by `consistency`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, PrivateAttr

from qdx.exporter.model_faults import dotted
from qdx.exporter.plan.schema.found import Found
from qdx.exporter.plan.schema.gates import AskedGates, ComponentGates, Gates, PipelineGates
from qdx.exporter.plan.schema.model import Name, PlanModel, Words
from qdx.exporter.plan.schema.rule import Rule, Select
from qdx.exporter.plan.schema.scheme import AskedInputs, AskedWeights, Inputs, Weights
from qdx.exporter.plan.schema.settings import Calibration, Nncf, Options, Smoothing
from qdx.exporter.plan.schema.tuning import Tune
from qdx.exporter.strict_json import position_of

__all__ = [
    "SCHEMA",
    "AskedGates",
    "AskedInputs",
    "AskedWeights",
    "Calibration",
    "ComponentGates",
    "Gates",
    "Inputs",
    "Nncf",
    "Options",
    "PipelineGates",
    "Plan",
    "Rule",
    "Select",
    "Smoothing",
    "Tune",
    "Weights",
    "json_schema",
]

SCHEMA: Final = "qdx.plan/1"
RULES_LIMIT: Final = 1000


class Plan(PlanModel):
    """What precision is wanted where, and what counts as accepted.

    Attributes:
        schema_: The format, `qdx.plan/1`; the key in JSON is `schema`.
        name: A short name.
        description: What the plan is for.
        quantizer: Who quantizes: `qdx` by the rules, or `nncf` by its own settings.
        nncf: Settings of NNCF; given exactly with quantizer `nncf`.
        rules: Ordered rules; later ones win.
        options: Changes of the graph beside quantization.
        calibration: The pipeline calls from which static ranges are taken.
        tune: What learns once it is quantized; null for nothing.
        gates: The acceptance test.
        found: Where a plan comes from that a search wrote; null for one that a person wrote.
    """

    model_config = ConfigDict(title=SCHEMA, validate_by_name=False, validate_by_alias=True)

    schema_: Literal["qdx.plan/1"] = Field(alias="schema")
    name: Name | None = None
    description: Words | None = None
    quantizer: Literal["qdx", "nncf"] = "qdx"
    nncf: Nncf | None = None
    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=RULES_LIMIT)]
    options: Options = Options()
    calibration: Calibration = Calibration()
    tune: Tune | None = None
    gates: AskedGates
    found: Found | None = None

    _source: str = PrivateAttr(default="plan")
    _text: str = PrivateAttr(default="")

    @property
    def quantizes(self) -> bool:
        """Whether anything beside float storage is asked for."""
        return self.quantizes_artifacts or any(rule.quantizes for rule in self.rules)

    @property
    def quantizes_artifacts(self) -> bool:
        """Whether somebody else's quantizer takes float artifacts, instead of the rules graphs."""
        return self.quantizer != "qdx"

    @property
    def selects_operations(self) -> bool:
        """Whether anything is asked of single operations."""
        return any(not rule.select.by_component for rule in self.rules)

    def place(self, *path: str | int) -> str:
        """Returns where a part of the plan was written, as `file:line:column` where known.

        >>> parse_plan(text, source="w.json").place("rules", 1)
        'w.json:9:5'
        """
        if self._text:
            return f"{self._source}:{position_of(self._text, path)}"
        return f"{self._source}: {dotted(path) or 'the plan'}"

    def to_json(self) -> dict[str, Any]:
        """Returns the plan as plain JSON data, without what was left out; for manifests.

        Bounds of gates that were left out are written: a contract holds whatever the defaults of a later version are.
        """
        value = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
        value["gates"] = self.gates.model_dump(mode="json", exclude_none=True)
        return value


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema of plans, for editors; `plan.schema.json` holds a copy.

    It is weaker than the loader, which also refuses duplicate keys and what contradicts itself.
    """
    schema = Plan.model_json_schema(by_alias=True)
    # The docstrings of the models are for readers of the code; keys have their words already.
    for part in (schema, *schema["$defs"].values()):
        part.pop("description", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
