"""NVIDIA's own ONNX parser as a check of a file, on any machine where TensorRT-RTX is installed.

Its parser is that of TensorRT and needs no device: it judges syntax, operator sets, types, scales and zero points of files
for either. What either of their builders makes of a file it does not know; the builder of TensorRT-RTX is asked where an
engine is built, that of TensorRT only on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from qdx.backends.tensorrt.engine.build import parsed
from qdx.backends.tensorrt.engine.log import Log, started
from qdx.backends.tensorrt.engine.package import TensorRt, tensorrt
from qdx.backends.tensorrt.flavour import RTX, Flavour
from qdx.backends.tensorrt.versions import OPERATORS
from qdx.exporter.errors import InvalidBundle, RuntimeMissing, TargetRefusal, first_line, quoted
from qdx.targets.installed import installed_version

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

__all__ = ["check_parsed", "parser_note"]


def parser_note(flavour: Flavour) -> str:
    """What an export for a flavour says of NVIDIA's parser, in one line; empty where building engines says more."""
    if flavour.builds_anywhere:
        return ""
    version = installed_version([RTX.distribution])
    if version is None:
        return (
            "NVIDIA's parser checked none of the files: it comes with TensorRT-RTX, "
            f'`pip install "qdx[{RTX.extra}]"`'
        )
    return (
        f"NVIDIA's parser, that of TensorRT-RTX {version}, checks every file; which kernels "
        f"{flavour.title} finds for it, a build alone shows"
    )


def check_parsed(model: Path, flavour: Flavour) -> tuple[str, ...]:
    """Has NVIDIA's parser read a file, its weights mapped into memory from beside it.

    Args:
        model: An ONNX file.
        flavour: What it is for.

    Returns:
        Why it was not checked, in one line; nothing where it was, or where TensorRT-RTX is not installed.

    Raises:
        TargetRefusal: The parser refuses it, with the nodes.
        InvalidBundle: It cannot be read at all.
    """
    if installed_version([RTX.distribution]) is None:
        return ()
    try:
        trt = tensorrt(RTX)
        _parse(trt, model)
    except RuntimeMissing as error:
        return (f"NVIDIA's parser did not check it: {error.message}",)
    except TargetRefusal:
        unread = [] if flavour is RTX else _unread(trt, model)
        if not unread:
            raise
        reader = f"that of TensorRT-RTX {trt.__version__}"
        return (
            f"NVIDIA's parser did not check it: {reader} does not read {', '.join(unread)}, {flavour.title}'s does",
        )
    return ()


def _parse(trt: TensorRt, model: Path) -> None:
    log = Log(RTX.title)
    logger = log.logger(trt)
    trt.init_libnvinfer_plugins(logger, "")
    builder = started(trt.Builder, logger, log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parsed(trt, network, logger, model, RTX.title)


def _unread(trt: TensorRt, model: Path) -> list[str]:
    """Operators of a file that TensorRT reads and the parser at hand does not."""
    log = Log(RTX.title)
    logger = log.logger(trt)
    builder = started(trt.Builder, logger, log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    return [
        name
        for name in dict.fromkeys(node.op_type for node in _nodes(model) if not node.domain)
        if name in OPERATORS and not parser.supports_operator(name)
    ]


def _nodes(model: Path) -> Iterator[NodeProto]:
    """The nodes of a file, those inside of others too.

    Raises:
        InvalidBundle: It cannot be read.
    """
    import onnx

    try:
        proto = onnx.load(model, load_external_data=False)
    except Exception as error:  # those of the protobuf library and of the file system share no base
        raise InvalidBundle(
            f"{quoted(model)}: not an ONNX model: {first_line(error)}", hint="export again"
        ) from error
    yield from _inner(proto.graph)
    for function in proto.functions:
        yield from function.node


def _inner(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _inner(inner)
