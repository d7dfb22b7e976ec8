"""`build.json`: how an engine is built from the model beside it, as strict data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qdx.backends.tensorrt.flavour import ENTERPRISE, RTX, Flavour, FlavourName, flavour_of
from qdx.backends.tensorrt.versions import SUPPORTED, VersionRange
from qdx.exporter.errors import InvalidBundle, UsageError, quoted
from qdx.exporter.files import check_relative, dump_json, parse_json, position_of
from qdx.targets.compute_capabilities import list_faults

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import TensorSpec

__all__ = [
    "RECIPE_NAME",
    "SCHEMA",
    "BuildRecipe",
    "InputShapes",
    "parse_recipe",
    "parse_record",
    "shape_faults",
]

RECIPE_NAME: Final = "build.json"
SCHEMA: Final = "qdx.tensorrt.build/1"

Size = Annotated[int, Field(ge=0, lt=2**31)]
Shape = Annotated[tuple[Size, ...], Field(max_length=8)]
Record = TypeVar("Record", bound=BaseModel)

_NOT_OF_RTX: Final = {
    "optimization_level": "it has no effect there: every level gives the same engine",
    "workspace_bytes": "it is for the device, which chooses the kernels later",
    "hardware_compatibility": "it is not supported there; an engine is for its `compute_capabilities`",
    "version_compatible": "an engine is for the very version that built it",
    "exclude_lean_runtime": "an engine is for the very version that built it",
    "refit": "building such an engine fails without a driver",
    "strip_weights": "building such an engine fails without a driver",
}
"""Options that TensorRT-RTX ignores, or cannot do on a machine without a device, with the reason."""


class _Record(BaseModel):
    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, validate_by_name=False
    )


class InputShapes(_Record):
    """Shapes of one input for which an engine is made.

    Attributes:
        smallest: Sizes of the smallest one, `min` in the file.
        usual: Sizes of the one that kernels are chosen for, `opt` in the file.
        largest: Sizes of the largest one, `max` in the file.
    """

    smallest: Shape = Field(alias="min")
    usual: Shape = Field(alias="opt")
    largest: Shape = Field(alias="max")

    @model_validator(mode="after")
    def _check_order(self) -> InputShapes:
        if not len(self.smallest) == len(self.usual) == len(self.largest):
            raise ValueError("`min`, `opt` and `max` differ in the number of sizes")
        ordered = zip(self.smallest, self.usual, self.largest, strict=True)
        if any(not low <= usual <= high for low, usual, high in ordered):
            raise ValueError("a size of `opt` is not between those of `min` and `max`")
        return self


class BuildRecipe(_Record):
    """The whole of `build.json`; `schema_version` is `schema` in the file.

    Every option that changes numbers or where an engine runs is written down, none is left to
    TensorRT's default.

    Attributes:
        model: The ONNX file beside the recipe.
        context: A file that a build writes beside the engine, which ONNX Runtime's provider for TensorRT-RTX opens: a
            model of one node, which leads to the engine. None for none.
        flavour: TensorRT, or TensorRT-RTX, which takes fewer of these options.
        versions: The flavour's versions that the model was checked for, such as `>=10.12,<12`.
        compute_capabilities: Of devices for which TensorRT-RTX compiles the engine, such as `8.9`; empty for the least
            that holds the model's types, and those after it. TensorRT builds for the device at hand.
        profiles: Shapes by input, one table for each way of calling; empty where all sizes are fixed.
        optimization_level: How long the builder searches, 0 to 5.
        workspace_bytes: Most device memory that a kernel may use for itself; None for all of it.
        tf32: Whether products of float32 may round their factors to 10 bits.
        hardware_compatibility: Which devices beside the building one; more devices, less speed.
        version_compatible: Whether later minor versions may load the engine; costs speed.
        exclude_lean_runtime: Whether a version-compatible engine goes without the runtime inside it.
        weight_streaming: Whether weights may stay in host memory.
        refit: Whether weights may be exchanged: not at all, for the same ones, or for any.
        strip_weights: Whether the engine goes without the weights, which are read from the model.
    """

    schema_version: Literal["qdx.tensorrt.build/1"] = Field(alias="schema", default=SCHEMA)
    model: str = "model.onnx"
    context: str | None = None
    flavour: FlavourName = "tensorrt"
    versions: str = str(SUPPORTED)
    compute_capabilities: Annotated[tuple[str, ...], Field(max_length=8)] = ()
    profiles: tuple[dict[str, InputShapes], ...] = ()
    optimization_level: Annotated[int, Field(ge=0, le=5)] = 3
    workspace_bytes: Annotated[int, Field(ge=1)] | None = None
    tf32: bool = False
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"] = "none"
    version_compatible: bool = False
    exclude_lean_runtime: bool = False
    weight_streaming: bool = False
    refit: Literal["none", "identical", "any"] = "none"
    strip_weights: bool = False

    @model_validator(mode="after")
    def _check(self) -> BuildRecipe:
        for key, name in (("model", self.model), ("context", self.context)):
            if name is not None:
                check_relative(name, error=InvalidBundle)
                if "/" in name:
                    raise ValueError(
                        f"`{key}` is in another folder, expected a file beside the recipe"
                    )
        if self.context == self.model:
            raise ValueError("`context` is the model that the engine is built from")
        try:
            VersionRange.parse(self.versions)
        except UsageError as bad:
            raise ValueError(f"`versions`: {bad.message}") from None
        if self.exclude_lean_runtime and not self.version_compatible:
            raise ValueError("`exclude_lean_runtime` without `version_compatible`")
        if self.strip_weights and self.refit == "none":
            raise ValueError("`strip_weights` without `refit`: the weights could not come back")
        names = {frozenset(profile) for profile in self.profiles}
        if len(names) > 1 or frozenset() in names:
            raise ValueError("`profiles` name different inputs, expected the same in each")
        self._check_flavour()
        return self

    def _check_flavour(self) -> None:
        """Each flavour has options of its own: one that it does not follow would be a promise that nobody keeps."""
        if self.flavour == ENTERPRISE.name:
            if self.context is not None:
                raise ValueError(
                    f"`context` for {ENTERPRISE.title}: it is for {RTX.title}'s engines"
                )
            if self.compute_capabilities:
                raise ValueError(
                    f"`compute_capabilities` for {ENTERPRISE.title}, which builds for the device at hand"
                )
            return
        for name, why in _NOT_OF_RTX.items():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` for {RTX.title}: {why}; leave it out")
        fault = list_faults(self.compute_capabilities)
        if fault:
            raise ValueError(f"`compute_capabilities`: {fault}")

    @property
    def builder(self) -> Flavour:
        """What builds the engine."""
        return flavour_of(self.flavour)

    @property
    def version_range(self) -> VersionRange:
        """The versions as numbers."""
        return VersionRange.parse(self.versions)

    def to_json(self) -> bytes:
        """Returns the bytes of `build.json`."""
        return dump_json(self.model_dump(mode="json", by_alias=True))


def parse_recipe(data: bytes, *, source: str) -> BuildRecipe:
    """Parses the bytes of an untrusted `build.json`.

    Args:
        data: The whole file.
        source: Its path, for messages.

    Raises:
        InvalidBundle: With line and column.
    """
    return parse_record(BuildRecipe, data, SCHEMA, source=source)


def parse_record(kind: type[Record], data: bytes, schema: str, *, source: str) -> Record:
    """Parses an untrusted file of one of this backend's schemas; raises like `parse_recipe`."""
    try:
        text = data.decode("utf-8", "strict")
    except UnicodeDecodeError as bad:
        raise InvalidBundle(f"{quoted(source)}: byte {bad.start} is not UTF-8") from None
    value = parse_json(text, source=source, error=InvalidBundle)
    if value.get("schema") != schema:
        message = f"{quoted(source)}: schema {quoted(value.get('schema'))}"
        raise InvalidBundle(f"{message}, expected {quoted(schema)}", hint="export again")
    try:
        # From our own canonical text, so that only one JSON reader decides what the file means.
        return kind.model_validate_json(dump_json(value))
    except InvalidBundle as bad:
        raise InvalidBundle(f"{quoted(source)}: {bad.message}") from None
    except ValidationError as bad:
        first = bad.errors(include_url=False, include_context=False)[0]
        place = position_of(text, first["loc"])
        key = ".".join(str(part) for part in first["loc"]) or "build"
        where = quoted(f"{source}:{place}")
        raise InvalidBundle(f"{where}: {quoted(key)}: {first['msg']}") from None


def shape_faults(recipe: BuildRecipe, inputs: Sequence[TensorSpec]) -> tuple[str, ...]:
    """What of a recipe's profiles does not fit a model's inputs, a line each."""
    known = {spec.name: spec for spec in inputs}
    moving = {name for name, spec in known.items() if any(isinstance(s, str) for s in spec.shape)}
    found = []
    if not recipe.profiles and moving:
        found.append(f"no profile for the open sizes of {', '.join(sorted(moving))}")
    for index, profile in enumerate(recipe.profiles):
        found += [
            f"profile {index}: no input {quoted(name)}"
            for name in sorted(profile.keys() - known.keys())
        ]
        found += [
            f"profile {index}: no shapes of {quoted(name)}"
            for name in sorted(moving - profile.keys())
        ]
        for name in sorted(profile.keys() & known.keys()):
            found += _shape_faults(f"profile {index}: {quoted(name)}", profile[name], known[name])
    return tuple(found)


def _shape_faults(where: str, shapes: InputShapes, spec: TensorSpec) -> list[str]:
    if len(shapes.usual) != len(spec.shape):
        return [f"{where} has {len(shapes.usual)} sizes, expected {len(spec.shape)}"]
    found = []
    for axis, size in enumerate(spec.shape):
        given = {shapes.smallest[axis], shapes.usual[axis], shapes.largest[axis]}
        if isinstance(size, int) and given != {size}:
            found.append(f"{where}: size {axis} is fixed to {size}, got {sorted(given)}")
    return found
