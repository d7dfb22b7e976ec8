"""What a stored reference is: its files, the form of its contents, and the bundle that it is of.

It is a folder like an entry of the cache: every file is listed with its digest. Who it is for is written beside: the model,
the call, the target and the quantization of one bundle, and none other takes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from qdx.bundle.recipes import recipes_of
from qdx.cache.entry import LISTING
from qdx.cache.facts import tensor_digest
from qdx.cache.keys import key_of
from qdx.exporter.errors import InvalidInput
from qdx.exporter.files import dump_json, load_json
from qdx.source.adapted import identity_of

if TYPE_CHECKING:
    from pathlib import Path

    from qdx.bundle.reader import Bundle

__all__ = [
    "CONTENTS", "KIND", "OTHER_SHAPE", "SCHEMA", "VALUES", "Contents", "GraphRecord", "SiteRecord", "identity_for",
    "kind_of", "run_folder",
]  # fmt: skip

KIND: Final = "verification-reference"
"""As listings of cache entries have it."""
SCHEMA: Final = "qdx.verification-reference/1"
CONTENTS: Final = "contents.json"
VALUES: Final = "values"
"""The folder of tensors that are not of a run."""
OTHER_SHAPE: Final = "run-other-shape"


_Count = Annotated[int, Field(ge=0)]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Tensors = tuple[tuple[str, _Digest], ...]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class SpecRecord(_Record):
    call: dict[str, JsonValue]
    seed: int


class SiteRecord(_Record):
    """A site; see `Site`."""

    key: str
    fqn: str
    node: str
    op: str
    role: str
    stage: str
    macs: _Count
    weight: str | None
    weight_shape: tuple[int, ...]
    ports: dict[str, int]
    channel_axis: int
    head: int
    product: str


class InputRecord(_Record):
    name: str
    dtype: str
    shape: tuple[int | str, ...]
    pairs: bool


class QuantizerRecord(_Record):
    name: str
    source: str
    place: str
    shape: tuple[int | None, ...]


class LockstepRecord(_Record):
    index: _Count
    given: _Tensors
    outputs: _Tensors


class GraphRecord(_Record):
    """A quantized graph; see `StoredGraph`."""

    where: str
    macs: _Count
    identity: _Digest
    inputs: tuple[InputRecord, ...]
    quantizers: tuple[QuantizerRecord, ...]
    calls: tuple[LockstepRecord, ...]
    why_not: str


class AnswerRecord(_Record):
    key: _Digest
    outputs: _Tensors


class Contents(_Record):
    """What the folder holds beside tensors.

    Attributes:
        schema_: Its format; the key in JSON is `schema`.
        identity: See `identity_for`.
        specs: What was run.
        other_shape: Whether there is a run at a second shape.
        graphs: The quantized graphs.
        answers: What they answered, by key of the call.
        sites: Of all graphs by `component.method`; null of a bundle that is not quantized.
        versions: Of what computed.
    """

    schema_: Literal["qdx.verification-reference/1"] = Field(alias="schema")
    identity: dict[str, JsonValue]
    specs: Annotated[tuple[SpecRecord, ...], Field(min_length=1)]
    other_shape: bool
    graphs: tuple[GraphRecord, ...]
    answers: tuple[AnswerRecord, ...]
    sites: dict[str, tuple[SiteRecord, ...]] | None
    versions: dict[str, str]


def identity_for(bundle: Bundle) -> dict[str, JsonValue]:
    """What a reference is of: each part by its name, to tell which of them is another."""
    manifest = bundle.manifest
    recipes = {
        where: key_of({
            "recipe": recipe.to_json(),
            "tensors": {name: tensor_digest(one) for name, one in recipe.tensors().items()},
        })
        for where, recipe in sorted(recipes_of(bundle).items())
    }  # fmt: skip
    source = {"pipeline": manifest.source.pipeline_class, "files": dict(identity_of(manifest))}
    call = {
        "call": dict(manifest.call),
        "setup": [dict(step) for step in manifest.setup],
        "shapes": manifest.shapes,
        "layout": manifest.layout,
        "left_out": list(manifest.left_out),
    }
    return {
        "target": manifest.target.name,
        "model": _digest(source),
        "call": _digest(call),
        "quantization": _digest({
            "recipes": recipes, "resolved": manifest.content_sha256["resolved"]
        }),
    }  # fmt: skip


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(dump_json(dict(value))).hexdigest()


def kind_of(folder: Path) -> object:
    """What a folder's listing says that it is; None of what has none."""
    try:
        return load_json(folder / LISTING, error=InvalidInput).get("kind")
    except InvalidInput:
        return None


def run_folder(number: int) -> str:
    """Name of the folder of one run."""
    return f"run-{number}"
