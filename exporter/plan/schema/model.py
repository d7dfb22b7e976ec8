"""What all models of a plan share: strictness, and the small types of their values."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

__all__ = ["Decibels", "Name", "OneOf", "PlanModel", "Ratio", "Words"]

Words = Annotated[str, Field(min_length=1, max_length=1000)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=64)]
Decibels = Annotated[float, Field(ge=0, le=200, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class OneOf:
    """Marks text that must be a name out of a registry, as `Literal` does for names that never change.

    Args:
        names: Returns the names; called whenever a value is checked or the JSON Schema is asked for.
    """

    def __init__(self, names: Callable[[], Collection[str]]) -> None:
        self._names = names

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        del source, handler
        return core_schema.no_info_plain_validator_function(self._checked)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        del schema, handler
        return {"enum": list(self._names()), "type": "string"}

    def _checked(self, value: object) -> str:
        names = list(self._names())
        if isinstance(value, str) and value in names:
            return value
        *others, last = (f"'{name}'" for name in names)
        expected = f"{', '.join(others)} or {last}" if others else last
        raise PydanticKnownError("literal_error", {"expected": expected})


_NONE: Final = re.compile(r"\bNone\b")
_ATTRIBUTE: Final = re.compile(r"^    (\w+): (.+(?:\n {8,}.+)*)", re.MULTILINE)


def _described(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Gives the keys of a schema the words of the model's docstring, which editors show."""
    for name, words in _attributes(model):
        key = model.model_fields[name].alias or name
        schema["properties"][key]["description"] = words


def _attributes(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Names and words of the attributes in a docstring, each in one line and in JSON's terms."""
    _, _, attributes = (inspect.getdoc(model) or "").partition("Attributes:\n")
    for name, words in _ATTRIBUTE.findall(attributes):
        yield name, _NONE.sub("null", " ".join(words.split()))


class PlanModel(BaseModel):
    """Base of the models: unknown keys are errors, nothing is converted, nothing changes."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, json_schema_extra=_described
    )
