"""`qdx.json`: what a bundle is, where it comes from, and every file with its digest.

The schema is closed: an unknown key or another major version is an error, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from qdx.bundle.resolution import ResolvedRecord
from qdx.bundle.seal import SEAL, check_seal
from qdx.exporter.errors import InvalidBundle, quoted
from qdx.exporter.files import check_relative, dump_json, parse_json, position_of
from qdx.exporter.form import Form
from qdx.exporter.limits import (
    BUNDLE_FILES_LIMIT,
    LORA_RANK_LIMIT,
    PARAMETERS_LIMIT,
    RANGES_TIMESTEPS_LIMIT,
)
from qdx.targets.profile import TargetProfile

if TYPE_CHECKING:
    from qdx.exporter.capture.variants import CallSignature

__all__ = [
    "MANIFEST_NAME",
    "SCHEMA",
    "ComponentRecord",
    "FileRecord",
    "InputPort",
    "LoraInputs",
    "LoraLayer",
    "LoraRecord",
    "Manifest",
    "MethodRecord",
    "OutputPort",
    "ResolutionRecord",
    "SizesRecord",
    "SourceRecord",
    "TargetRecord",
    "parse_manifest",
]

MANIFEST_NAME: Final = "qdx.json"
SCHEMA: Final = "qdx.bundle/1"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0)]
# Names become keys, folders and words in messages: those of Python attributes, in ASCII.
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
Dtype = Literal["float64", "float32", "float16", "bfloat16", "int64", "int32", "bool"]
Dimension = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]


class _Record(BaseModel):
    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, validate_by_name=False
    )


class FileRecord(_Record):
    """One file of the bundle: path below the bundle, size and SHA-256."""

    path: str
    size_bytes: Size
    sha256: Sha256


class InputPort(_Record):
    """One input of an artifact.

    Attributes:
        argument: The argument of the component that feeds it.
        name: In the artifact.
        dtype: Of the artifact, for example `float32`.
        shape: Sizes; text is a dynamic dimension.
        values: All that it may hold, such as the timesteps of a table; empty for any.
        form: How the artifact's array lies, where that is not as the component takes it.
        pairs: Whether the component takes complex numbers; the last dimension holds their real and imaginary parts.
    """

    argument: str
    name: str
    dtype: Dtype
    shape: tuple[Dimension, ...]
    values: Annotated[tuple[float, ...], Field(max_length=RANGES_TIMESTEPS_LIMIT)] = ()
    form: Form | None = None
    pairs: bool = False


class OutputPort(_Record):
    """One output of an artifact.

    Attributes:
        field: The field of the component's output that it becomes.
        name: In the artifact.
        dtype: Of the artifact.
        shape: Sizes; text is a dynamic dimension.
        pairs: Whether the component answers complex numbers, as for inputs.
    """

    field: str
    name: str
    dtype: Dtype
    shape: tuple[Dimension, ...]
    pairs: bool = False


class LoraLayer(_Record):
    """A layer that takes adapters, see `AdaptedLayer`."""

    path: str
    down: str
    up: str
    inputs: Annotated[int, Field(ge=1)]
    outputs: Annotated[int, Field(ge=1)]


class LoraInputs(_Record):
    """Inputs of an artifact beside those of the method, zeros where no adapter is loaded.

    Attributes:
        rank: Of all adapters of a layer together, at most.
        layers: That take them.
    """

    rank: Annotated[int, Field(ge=1, le=LORA_RANK_LIMIT)]
    layers: Annotated[tuple[LoraLayer, ...], Field(min_length=1, max_length=PARAMETERS_LIMIT)]

    @property
    def names(self) -> frozenset[str]:
        """Of the inputs."""
        return frozenset(name for layer in self.layers for name in (layer.down, layer.up))


def signature_of_ports(
    inputs: tuple[InputPort, ...],
    state: Mapping[str, str],
    fixed: Mapping[str, Any],
    constants: Mapping[str, Any],
) -> CallSignature:
    """The calls that a method of these inputs answers; the other arguments as in `MethodRecord`."""
    shapes = {port.argument: port.shape for port in inputs if port.form is None}
    names = frozenset(port.argument for port in inputs)
    # Imports PyTorch, which what only lists bundles or entries of the cache has no use for.
    from qdx.exporter.capture.variants import CallSignature

    return CallSignature(names, shapes, state, fixed, constants)


class MethodRecord(_Record):
    """One method of a component, compiled into one folder of the bundle.

    Attributes:
        folder: Holds what belongs to it.
        inputs: Of the artifact.
        outputs: Of the artifact.
        constants: Arguments that the method was traced with.
        artifact: The artifact, where a layout has it elsewhere than in `folder`.
        state: What the pipeline had changed in the component when the method was traced, by `path.attribute`.
        fixed: Tensors, see `as_values`, with whose values it was traced; it answers calls with these alone.
        lora: Inputs that take adapters at run time; None without any.
    """

    folder: str
    inputs: tuple[InputPort, ...]
    outputs: tuple[OutputPort, ...]
    constants: dict[str, JsonValue] = Field(default_factory=dict)
    artifact: str | None = None
    state: dict[str, str] = Field(default_factory=dict)
    fixed: dict[str, JsonValue] = Field(default_factory=dict)
    lora: LoraInputs | None = None

    @property
    def signature(self) -> CallSignature:
        """The calls that it answers."""
        return signature_of_ports(self.inputs, self.state, self.fixed, self.constants)

    @property
    def adapter_inputs(self) -> frozenset[str]:
        """Names of the artifact's inputs that take adapters."""
        return frozenset() if self.lora is None else self.lora.names

    @property
    def opened(self) -> str:
        """What a backend opens: the artifact, or the folder that holds it."""
        return self.folder if self.artifact is None else self.artifact


class ComponentRecord(_Record):
    """One component of the pipeline; `class_name` is `class` in the file."""

    class_name: str = Field(alias="class")
    library: str
    methods: Annotated[dict[Name, MethodRecord], Field(min_length=1)]


class TargetRecord(_Record):
    """The target that a bundle was made for, and the options of its runtime.

    Attributes:
        profile: The target as it was then.
    """

    name: str
    runtime: str
    options: dict[str, str]
    profile: TargetProfile

    @model_validator(mode="after")
    def _profile_is_its_own(self) -> TargetRecord:
        for key in ("name", "runtime"):
            if getattr(self.profile, key) != getattr(self, key):
                raise ValueError(f"`profile.{key}` is not `{key}`")
        return self


class ResolutionRecord(_Record):
    """What the plan became for one component.

    Attributes:
        component: Its name.
        asked: The type that the plan asks for.
        rule: The rule of the plan that decided.
        becomes: The type in which the weights are stored.
        computes: The type in which the operations run.
        why: The reason, in words.
    """

    component: Name
    asked: str
    rule: str
    becomes: str
    computes: str
    why: str


class SizesRecord(_Record):
    """Which pictures a bundle generates, in pixels.

    Attributes:
        height: Of the export's call.
        width: Likewise.
        unit: What height and width must be multiples of, beyond what the pipeline itself wants; None for nothing.
    """

    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    unit: Annotated[int, Field(ge=1)] | None = None


class LoraRecord(_Record):
    """One file of adapters that was merged into the weights, and its scale."""

    sha256: Sha256
    scale: float


class SourceRecord(_Record):
    """The pipeline that was compiled.

    Attributes:
        pipeline_class: Its class.
        files: Digest of each file read, by path.
        lora: What was merged into its weights, in order.
    """

    pipeline_class: str
    files: dict[str, Sha256]
    lora: tuple[LoraRecord, ...] = ()


class Manifest(_Record):
    """The whole of `qdx.json`; `schema_version` is `schema` in the file.

    Attributes:
        plan: The plan as it was given.
        resolution: What the plan became for each component, and why.
        resolved: What else it became: gates, and every site.
        call: The arguments of the pipeline call that was traced.
        calibration: Where the ranges of activations come from; None where none were needed.
        omitted: Components that no bundle carries, each with the reason.
        left_out: Components that this export was told to leave to PyTorch.
        setup: Methods that are called on the pipeline when it is built, see `check_setup`.
        needs_model: Why the bundle can be opened only with the pipeline that it was made from; empty where it can alone.
        versions: Of the libraries that took part.
        layout: The layout that was asked for; None for the target's own.
        sizes: Which pictures it generates; None where it is not known, or generates none.
        files: Every file but `qdx.json`, sorted by path.
        content_sha256: Digests of all this, see `qdx.bundle.seal`.
    """

    schema_version: Literal["qdx.bundle/1"] = Field(alias="schema")
    qdx: str
    target: TargetRecord
    plan: dict[str, JsonValue]
    resolution: tuple[ResolutionRecord, ...]
    resolved: ResolvedRecord
    source: SourceRecord
    call: dict[str, JsonValue]
    shapes: Literal["static", "dynamic"]
    components: dict[Name, ComponentRecord]
    omitted: dict[Name, str] = Field(default_factory=dict)
    left_out: tuple[Name, ...] = ()
    setup: tuple[dict[str, dict[str, JsonValue]], ...] = ()
    needs_model: str = ""
    calibration: dict[str, JsonValue] | None = None
    versions: dict[str, str]
    layout: Name | None = None
    sizes: SizesRecord | None = None
    files: tuple[FileRecord, ...]
    content_sha256: dict[str, Sha256]

    @property
    def has_packages(self) -> bool:
        """Whether the artifacts are packages of an application, elsewhere than in the methods' folders."""
        methods = (m for component in self.components.values() for m in component.methods.values())
        return any(method.artifact is not None for method in methods)

    @model_validator(mode="after")
    def _check_paths(self) -> Manifest:
        paths = [record.path for record in self.files]
        _check_file_names(paths)
        for name, component in self.components.items():
            for method, record in component.methods.items():
                for folder in (record.folder, record.artifact):
                    if folder is None:
                        continue
                    check_relative(folder, error=InvalidBundle)
                    if not any(path.startswith(f"{folder}/") for path in paths):
                        where = quoted(f"{name}.{method}")
                        message = f"{where}: folder {quoted(folder)} holds no file"
                        raise InvalidBundle(f"{message}, expected the artifact")
        return self

    @model_validator(mode="after")
    def _check_names(self) -> Manifest:
        resolved = [record.component for record in self.resolution]
        if len(set(resolved)) != len(resolved):
            raise InvalidBundle("`resolution`: names a component twice, expected each once")
        for name in (*self.components, *self.left_out):
            if name not in resolved:
                raise InvalidBundle(f"`resolution`: has no {quoted(name)}, expected each component")
        for name in self.left_out:
            if name in self.components:
                message = f"`left_out`: {quoted(name)} is in `components` too"
                raise InvalidBundle(f"{message}, expected it in one of the two")
        return self


def parse_manifest(data: bytes, *, source: str) -> Manifest:
    """Parses the bytes of an untrusted `qdx.json`.

    Args:
        data: The whole file.
        source: Its path, for messages.

    Raises:
        InvalidBundle: With line and column.
    """
    try:
        text = data.decode("utf-8", "strict")
    except UnicodeDecodeError as bad:
        raise InvalidBundle(f"{quoted(source)}: byte {bad.start} is not UTF-8") from None
    value = parse_json(text, source=source, error=InvalidBundle)
    _check_schema(value, source)
    try:
        # From our own canonical text, so that only one JSON reader decides what the file means.
        manifest = Manifest.model_validate_json(dump_json(value))
    except InvalidBundle as bad:
        raise InvalidBundle(f"{quoted(source)}: {bad.message}") from None
    except ValidationError as bad:
        first = bad.errors(include_url=False, include_context=False)[0]
        place = position_of(text, first["loc"])
        key = ".".join(str(part) for part in first["loc"])
        raise InvalidBundle(
            f"{quoted(f'{source}:{place}')}: {quoted(key)}: {first['msg']}"
        ) from None
    check_seal(value, source=source)
    return manifest


def _check_schema(value: dict[str, Any], source: str) -> None:
    schema = value.get("schema")
    if schema != SCHEMA:
        message = f"{quoted(source)}: schema {quoted(schema)}, expected {quoted(SCHEMA)}"
        newer = isinstance(schema, str) and schema.startswith("qdx.bundle/")
        hint = "read it with the version of qdx that wrote it, or export again" if newer else None
        raise InvalidBundle(message, hint=hint)
    if SEAL not in value:
        raise InvalidBundle(
            f"{quoted(source)}: has no {quoted(SEAL)}, expected the digests of its parts",
            hint="an earlier version of qdx wrote it, or it was edited: export again",
        )


def _check_file_names(paths: list[str]) -> None:
    """Refuses names that a file system could confuse or that could leave the bundle."""
    if len(paths) > BUNDLE_FILES_LIMIT:
        raise InvalidBundle(f"`files`: {len(paths)} entries, expected at most {BUNDLE_FILES_LIMIT}")
    for path in paths:
        check_relative(path, error=InvalidBundle)
    if paths != sorted(set(paths)):
        raise InvalidBundle("`files`: not sorted or not unique, expected each path once, in order")
    spelled: dict[str, str] = {MANIFEST_NAME: ""}
    for path in paths:
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            prefix = "/".join(parts[:count])
            # A folder may come again; a file may not, and neither in another case.
            mark = prefix if count == len(parts) else f"{prefix}/"
            if spelled.setdefault(prefix.casefold(), mark) != mark:
                raise InvalidBundle(f"`files`: {quoted(path)} has the name of another entry")
