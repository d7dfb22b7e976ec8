"""What a target's file says: what a runtime on a device can do, and how its ecosystem names things."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, Strict, field_validator, model_validator

from qdx.exporter.dtypes import FLOAT_DTYPES
from qdx.exporter.plan.resolve.feasibility import Offer, Request
from qdx.exporter.plan.schema.choices import Choices
from qdx.exporter.plan.schema.scheme import FloatDtype
from qdx.exporter.strict_model import StrictModel
from qdx.targets.kernels import Kernel, offer_of

__all__ = [
    "DeviceSpeed",
    "Dtype",
    "FileName",
    "Limits",
    "Names",
    "Port",
    "PortChange",
    "TargetLayout",
    "TargetProfile",
]

_MULTIPLIED: Final = (*FLOAT_DTYPES, "int8", "float8_e4m3fn", "mxfp8", "nvfp4")
_KEY: Final = re.compile(r"[a-z0-9_*?]+\.[a-z0-9_*?]+\.[A-Za-z0-9_*?.]+")

Dtype = Literal["float64", "float32", "float16", "bfloat16", "int64", "int32", "bool"]
# TOML has lists only; they are taken as tuples.
Names = Annotated[tuple[str, ...], Strict(strict=False)]
Distributions = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], ...], Strict(strict=False)
]
Folder = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,127}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
Kernels = Annotated[tuple[Kernel, ...], Strict(strict=False)]
Quantizers = Annotated[tuple[Literal["qdx", "nncf"], ...], Strict(strict=False)]


@dataclass(frozen=True)
class Port:
    """An input or output as the artifact declares it.

    Attributes:
        name: Its name in the artifact.
        dtype: Its element type, torch's name.
        rank: Its number of dimensions; None leaves the traced one.
    """

    name: str
    dtype: str
    rank: int | None


class PortChange(StrictModel):
    """What a layout changes on an input or output; None leaves the traced value.

    Attributes:
        name: New name.
        dtype: New element type.
        rank: New number of dimensions: 0 a scalar, 1 one value for each batch entry.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$")] | None = None
    dtype: Dtype | None = None
    rank: Annotated[int, Field(ge=0, le=1)] | None = None


class TargetLayout(StrictModel):
    """Names and types that the loaders of an ecosystem expect.

    Keys of the tables are `component.method` and `component.method.tensor`, where a tensor has the
    name that tracing gave it. Keys of ports may be globs; an exact key comes first, then the globs
    in the order of the file.

    Attributes:
        model_file: File name of the model in a component's folder.
        external_data_file: File name of the weights beside it.
        context_file: File name of a model that stands for the engine, which whoever builds that writes; None for none.
        exact_readers: Programs that load the artifacts and take no other dtypes than these, for messages.
        halves: File names of the two models that a model is cut into; empty for one.
        dot: What stands for the dots of nested tensors' names, where those may not be.
        scalars: Whether inputs without dimensions may be; otherwise they have one, of length one.
        folders: Folder by `component.method`, where it is not the default.
        dtypes: Declared element type by traced element type, where they differ.
        inputs: Changes of inputs.
        outputs: Changes of outputs.
    """

    model_file: str
    external_data_file: str | None = None
    context_file: FileName | None = None
    exact_readers: Names = ()
    halves: Names = ()
    dot: Annotated[str, Field(pattern=r"^[._]$")] = "."
    scalars: bool = True
    folders: Mapping[str, Folder] = {}
    dtypes: Mapping[Dtype, Dtype] = {}
    inputs: Mapping[str, PortChange] = {}
    outputs: Mapping[str, PortChange] = {}

    @field_validator("inputs", "outputs")
    @classmethod
    def _keys_are_paths(cls, value: Mapping[str, PortChange]) -> Mapping[str, PortChange]:
        for key in value:
            if not _KEY.fullmatch(key):
                raise ValueError(f"{key!r}: expected component.method.tensor")
        return value

    def folder(self, component: str, method: str) -> str:
        """Returns the folder of a traced method.

        >>> layout.folder("unet", "forward"), layout.folder("vae", "decode")
        ('unet', 'vae_decoder')
        """
        default = component if method == "forward" else f"{component}_{method}"
        return self.folders.get(f"{component}.{method}", default)

    def input(self, component: str, method: str, name: str, dtype: str) -> Port:
        """Returns how the artifact declares a traced input of this name and element type."""
        return self._port(self.inputs, f"{component}.{method}.{name}", name, dtype)

    def output(self, component: str, method: str, name: str, dtype: str) -> Port:
        """Returns how the artifact declares a traced output of this name and element type."""
        return self._port(self.outputs, f"{component}.{method}.{name}", name, dtype)

    def _port(self, table: Mapping[str, PortChange], key: str, name: str, dtype: str) -> Port:
        change = table.get(key)
        if change is None:
            # A glob of three parts must not match across a dot of the first two.
            fits = (c for pattern, c in table.items() if _matches(key, pattern))
            change = next(fits, PortChange())
        declared = {str(traced): str(kept) for traced, kept in self.dtypes.items()}
        own = name.replace(".", self.dot)
        return Port(change.name or own, change.dtype or declared.get(dtype, dtype), change.rank)


def _matches(key: str, pattern: str) -> bool:
    pairs = zip(key.split(".", 2), pattern.split(".", 2), strict=True)
    return all(fnmatchcase(part, glob) for part, glob in pairs)


class Limits(StrictModel):
    """What a runtime on a device takes, beside types; None or empty is no limit.

    Attributes:
        rank: Most dimensions of a tensor.
        dynamic_shapes: Why shapes must be fixed.
        weights_bytes: Most bytes of weights in one file.
        weights_bytes_why: The reason of that.
    """

    rank: Annotated[int, Field(ge=1)] | None = None
    dynamic_shapes: str | None = None
    weights_bytes: Annotated[int, Field(ge=1)] | None = None
    weights_bytes_why: str = ""


_MEGA: Final = 1e6
_MACS_PER_S_MOST: Final = 1e18
_BYTES_PER_S_MOST: Final = 1e15
_OPERATION_S_MOST: Final = 1.0


def _rate(what: str, most: float) -> AfterValidator:
    """What keeps a rate among those that devices have: a number of a data sheet without its prefix is none of them."""

    def checked(value: float) -> float:
        if not _MEGA <= value <= most:
            raise ValueError(
                f"{value:g} is not a rate of a device, expected {what} in one second, "
                f"from {_written(_MEGA)} to {_written(most)}"
            )
        return value

    return AfterValidator(checked)


def _written(power: float) -> str:
    """A power of ten as TOML has it."""
    return f"{power:.0e}".replace("+0", "").replace("+", "")


Number = Annotated[float, Field(allow_inf_nan=False)]
MacsPerS = Annotated[Number, _rate("multiply-accumulates", _MACS_PER_S_MOST)]
BytesPerS = Annotated[Number, _rate("bytes", _BYTES_PER_S_MOST)]


class DeviceSpeed(StrictModel):
    """What its vendor says of a device, at best: times are declared by it where nothing can be measured.

    Attributes:
        device: Its name in words.
        macs_per_s: Multiply-accumulates in a second by the type that is multiplied, such as `float16` and `int8`; the type of
            inputs decides, since weights of another are converted first.
        bytes_per_s: That it reads from memory, or writes.
        operation_s: That an operation costs beside.
    """

    device: Annotated[str, Field(min_length=1, max_length=100)]
    macs_per_s: Mapping[str, MacsPerS]
    bytes_per_s: BytesPerS
    operation_s: Annotated[float, Field(ge=0, le=_OPERATION_S_MOST, allow_inf_nan=False)] = 0.0

    @field_validator("macs_per_s")
    @classmethod
    def _types_are_known(cls, value: Mapping[str, float]) -> Mapping[str, float]:
        if not value:
            raise ValueError(f"names no type, expected {', '.join(_MULTIPLIED)}")
        for dtype in value:
            if dtype not in _MULTIPLIED:
                raise ValueError(f"{dtype!r} is not a type that is multiplied, expected {', '.join(_MULTIPLIED)}")  # fmt: skip
        return value


class TargetProfile(StrictModel):
    """A runtime on a device, as data.

    Attributes:
        schema_: The format, `qdx.target/1`; the key in TOML is `schema`.
        name: What `--target` takes.
        runtime: The backend that lowers and runs, see `qdx.backends.registry`.
        device: The runtime's name of the device.
        proved_on: Of one device, its name in words: what another machine executes does not prove what this one does.
            A phone runs no qdx, so that nothing proves it; an NVIDIA device with a `compute_capability` is one that
            has exactly this.
        extra: The extra that installs the runtime: `pip install "qdx[EXTRA]"`.
        needs: Module that making and verifying artifacts imports; None for none beside qdx itself.
        needs_extra: The extra that installs that, where it is not `extra`.
        opens_others: Whether the runtime opens what other tools wrote, and not bundles alone.
        distributions: Packages that provide the runtime, the usual one first.
        description: One line.
        storage_dtypes: Types in which weights can be stored.
        compute_dtype: Type in which operations run; `storage` for that in which a component's weights are
            stored.
        deployment_target: The oldest system that reads the artifacts, where that decides what they hold.
        runtime_versions: Versions of the runtime that the artifacts are for, such as `>=10.12,<12`, where they
            decide what these hold.
        compute_capability: Of an NVIDIA device, the least that it may have; None for any.
        compile_for: Compute capabilities for which an engine is compiled ahead of time, such as `8.9`; empty where
            engines are built on their device, and for the least one that has a model's types and those after it.
        refused: For types that cannot be stored, the reason.
        refused_options: For options of a plan that it cannot carry out, the reason.
        quantizers: Quantizers that can make its artifacts.
        choices: What it chooses of all that plans leave unsaid.
        kernels: What runs in low precision, and how; the first row that fits decides.
        options: The runtime's own options that change numerics, pinned.
        limits: What it takes, beside types.
        speed: What its vendor says of a device of this kind; None where nothing is said, as of those that are timed here.
        layout: Names and types that the ecosystem's loaders expect.
    """

    model_config = ConfigDict(title="qdx.target/1")

    schema_: Literal["qdx.target/1"] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    runtime: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
    device: str
    proved_on: str | None = None
    extra: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    needs: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")] | None = None
    needs_extra: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] | None = None
    opens_others: bool = True
    distributions: Distributions
    description: str
    storage_dtypes: Annotated[tuple[FloatDtype, ...], Strict(strict=False), Field(min_length=1)]
    compute_dtype: FloatDtype | Literal["storage"]
    deployment_target: Annotated[str, Field(pattern=r"^[a-zA-Z]+[0-9]+$")] | None = None
    runtime_versions: Annotated[str, Field(pattern=r"^>=[0-9.]+(,<[0-9.]+)?$")] | None = None
    compute_capability: Annotated[tuple[int, int], Strict(strict=False)] | None = None
    compile_for: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[0-9]{1,2}\.[0-9]$")], ...], Strict(strict=False)
    ] = ()
    refused: Mapping[str, str] = {}
    refused_options: Mapping[Annotated[str, Field(pattern=r"^mixed_precision$")], str] = {}
    quantizers: Quantizers = ("qdx",)
    choices: Choices
    kernels: Kernels = ()
    options: Mapping[str, str] = {}
    limits: Limits = Limits()
    speed: DeviceSpeed | None = None
    layout: TargetLayout

    @model_validator(mode="after")
    def _can_do_what_it_chooses(self) -> TargetProfile:
        chosen = self.choices.float_dtype.value
        if chosen not in self.storage_dtypes:
            raise ValueError(
                f"`choices.float_dtype` is `{chosen}`, which is not in `storage_dtypes`"
            )
        if self.choices.mixed_precision.value and "mixed_precision" in self.refused_options:
            raise ValueError("`choices.mixed_precision` is true, and `refused_options` refuses it")
        return self

    def to_json(self) -> dict[str, Any]:
        """Returns the profile as plain JSON data, for manifests."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def offer(self, request: Request) -> Offer:
        """Says what the target makes of an operation in low precision."""
        return offer_of(self.kernels, request)
