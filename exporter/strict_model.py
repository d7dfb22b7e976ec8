"""The base of models that files follow: unknown keys are errors, nothing is converted, nothing changes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict

__all__ = ["StrictModel", "described"]

_NONE: Final = re.compile(r"\bNone\b")
_ATTRIBUTE: Final = re.compile(r"^    (\w+): (.+(?:\n {8,}.+)*)", re.MULTILINE)


def described(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Gives the keys of a schema the words of the model's docstring, which editors show."""
    for name, words in _attributes(model):
        key = model.model_fields[name].alias or name
        schema["properties"][key]["description"] = words


def _attributes(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Names and words of the attributes in a docstring, each in one line and in JSON's terms."""
    _, _, attributes = (inspect.getdoc(model) or "").partition("Attributes:\n")
    for name, words in _ATTRIBUTE.findall(attributes):
        yield name, _NONE.sub("null", " ".join(words.split()))


class StrictModel(BaseModel):
    """A model with the words of its attributes in its JSON Schema."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, json_schema_extra=described)

    @classmethod
    def known_keys(cls) -> tuple[str, ...]:
        """The keys that a file may have here."""
        return tuple(field.alias or name for name, field in cls.model_fields.items())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values of some fields; what was worked out once from the old ones is not in it."""
        copied = super().model_copy(update=update, deep=deep)
        for name in vars(copied).keys() - type(self).model_fields.keys():
            del vars(copied)[name]  # a cached property, which pydantic copies like a field
        return copied
