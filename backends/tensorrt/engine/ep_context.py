"""A model of one node that stands for an engine: what ONNX Runtime's provider for TensorRT-RTX opens in its place.

The node is `com.microsoft.EPContext`. Its attributes are those of ONNX Runtime's schema of the operator (version 1), with
the meanings of its page "EP Context Design" at onnxruntime.ai/docs/execution-providers/EP-Context-Design.html:

    source                 the provider that opens it; others leave it alone
    embed_mode             0: the engine is a file of its own
    ep_cache_context       the name of that file, in the folder of this model
    main_context           1: the node has an engine, and does not borrow that of another node
    partition_name         under which the provider keeps what it compiles on the device, so each engine has its own
    hardware_architecture  the compute capability without a dot; with another one the provider warns
    onnx_model_filename    the model that the engine was built from
    ep_sdk_version         the version of TensorRT-RTX that built it

Neither the model nor the provider compares a digest: the bundle's manifest is what lists the engine.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qdx.backends.tensorrt.model_file import read_proto
from qdx.exporter.errors import InternalError, InvalidBundle, StorageError, first_line, quoted
from qdx.exporter.files import check_relative, safe_child

if TYPE_CHECKING:
    from onnx import ModelProto

    from qdx.backends.tensorrt.engine.record import EngineRecord

__all__ = ["SOURCE", "check_context", "context_model", "context_note", "write_context"]

SOURCE: Final = "NvTensorRTRTXExecutionProvider"
_OPERATOR: Final = "EPContext"
_DOMAIN: Final = "com.microsoft"
_DIGITS: Final = 16
"""Of the engine's digest in the partition's name."""
_OPSET: Final = 21
_AMPERE_AND_LATER: Final = "80+"
_ADA: Final = "89"
_BLACKWELL: Final = "120"


def context_model(model: ModelProto, record: EngineRecord, folder_name: str) -> ModelProto:
    """The model that stands for an engine.

    Args:
        model: That the engine was built from, without its weights: it has the engine's inputs and outputs.
        record: Of the engine.
        folder_name: Name of the component's folder.

    Raises:
        InvalidBundle: The record names an engine elsewhere.
    """
    from onnx import helper

    check_relative(record.engine, error=InvalidBundle)
    graph = model.graph
    node = helper.make_node(
        _OPERATOR,
        [value.name for value in graph.input],
        [value.name for value in graph.output],
        name=folder_name,
        domain=_DOMAIN,
        **_attributes(record, folder_name, _architecture(model, record)),
    )
    made = helper.make_graph([node], folder_name, graph.input, graph.output)
    return helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid(_DOMAIN, 1)],
        ir_version=model.ir_version,
        producer_name=model.producer_name,
    )


def write_context(folder: Path, record: EngineRecord) -> None:
    """Writes the model that stands for the engine in a folder, and checks it, as far as that is possible without the provider.

    Args:
        folder: With the engine, its record and the model that it was built from.
        record: Of the engine; its recipe names the file.

    Raises:
        InternalError: ONNX Runtime reads it and refuses it for another reason than that the provider is absent.
        InvalidBundle: The model that the engine was built from is missing or malformed.
        StorageError: The disk refused.
    """
    import onnx

    path = _path(folder, record)
    context = context_model(_source(folder, record), record, folder.name)
    onnx.checker.check_model(context)
    try:
        path.write_bytes(context.SerializeToString(deterministic=True))
    except OSError as bad:
        raise StorageError(
            f"{quoted(path)}: cannot be written, {bad.strerror or bad}",
            hint="free some space, or choose an output on another disk",
        ) from bad
    check_context(folder, record)
    _check_reads(path)


def check_context(folder: Path, record: EngineRecord) -> None:
    """Compares the model in a folder with what the engine and its source say.

    Raises:
        InvalidBundle: It is missing, malformed, or leads elsewhere.
    """
    path = _path(folder, record)
    found = read_proto(path)
    expected = context_model(_source(folder, record), record, folder.name)
    if found != expected:
        raise InvalidBundle(
            f"{quoted(path)}: {_difference(found, expected)}",
            hint="build the engine again with `qdx build --force`",
        )


def context_note(name: str) -> str:
    """What is known of such models, and what is not, in words for an export; `name` is that of their files."""
    return (
        f"each `{name}` stands for the engine beside it: ONNX Runtime {version('onnxruntime')} reads it, and lacks the "
        f"provider {SOURCE} alone; it was not run with that provider, which must have the very version of TensorRT-RTX "
        "that built the engine, see `qdx inspect`"
    )


def _attributes(record: EngineRecord, folder_name: str, architecture: str) -> dict[str, Any]:
    return {
        "source": SOURCE,
        "embed_mode": 0,
        "ep_cache_context": record.engine,
        "main_context": 1,
        "partition_name": f"{folder_name}_{record.sha256[:_DIGITS]}",
        "hardware_architecture": architecture,
        "onnx_model_filename": record.recipe.model,
        "ep_sdk_version": record.tensorrt,
    }


def _architecture(model: ModelProto, record: EngineRecord) -> str:
    """The least device that the engine is for, as the provider spells it.

    Where the recipe names none, it is the least one that has the model's types; the provider's word for Ampere and all
    that came after it has a plus.
    """
    asked = record.recipe.compute_capabilities
    if asked:
        least = min(tuple(map(int, one.split("."))) for one in asked)
        return "".join(map(str, least))
    from onnx import TensorProto

    types = {tensor.data_type for tensor in model.graph.initializer}
    if TensorProto.FLOAT4E2M1 in types:
        return _BLACKWELL
    return _ADA if TensorProto.FLOAT8E4M3FN in types else _AMPERE_AND_LATER


def _path(folder: Path, record: EngineRecord) -> Path:
    name = record.recipe.context
    assert name is not None, "asked only where the recipe has one"
    return safe_child(folder, name, error=InvalidBundle)


def _source(folder: Path, record: EngineRecord) -> ModelProto:
    return read_proto(safe_child(folder, record.recipe.model, error=InvalidBundle))


def _difference(found: ModelProto, expected: ModelProto) -> str:
    """The first thing in which two such models differ, in words."""
    nodes = [f"{node.domain}.{node.op_type}" for node in found.graph.node]
    if nodes != [f"{_DOMAIN}.{_OPERATOR}"]:
        return f"holds {', '.join(map(quoted, nodes)) or 'no node'}, expected one `{_DOMAIN}.{_OPERATOR}`"
    from onnx import helper

    here, there = (
        {one.name: helper.get_attribute_value(one) for one in model.graph.node[0].attribute}
        for model in (found, expected)
    )
    for name in [*there, *sorted(here.keys() - there.keys())]:
        if here.get(name) != there.get(name):
            return f"{quoted(name)} is {_shown(here.get(name))}, expected {_shown(there.get(name))}"
    return "its inputs or outputs are not those of the model that the engine was built from"


def _shown(value: object) -> str:
    if value is None:
        return "missing"
    return quoted(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)


def _check_reads(path: Path) -> None:
    """Has ONNX Runtime read the model: the operator's schema holds, and all that is missing is the provider.

    Raises:
        InternalError: It refuses the model for another reason, or runs it.
    """
    from qdx.backends.onnx.package import onnxruntime

    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what it would print is in the exception
    try:
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        said = str(error)
        if "NOT_IMPLEMENTED" in said and SOURCE in said:
            return
        raise InternalError(
            f"{quoted(path.name)}: ONNX Runtime refuses it: {first_line(error)}"
        ) from error
    raise InternalError(f"{quoted(path.name)}: ONNX Runtime runs it without its provider")
