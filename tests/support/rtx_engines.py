"""Engines that TensorRT-RTX really builds here, without a device."""

from __future__ import annotations

from pathlib import Path

from tests.support.tensorrt_bindings import run_with_rtx

_BUILD = """
class Logger(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
        self.said = []

    def log(self, severity, msg):
        self.said.append(msg)

logger = Logger()
builder = trt.Builder(logger)
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
parser = trt.OnnxParser(network, logger)
assert parser.parse_from_file({model!r}), [parser.get_error(i).desc() for i in range(parser.num_errors)]
config = builder.create_builder_config()
config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
config.num_compute_capabilities = 1
config.set_compute_capability(trt.ComputeCapability.SM89, 0)
open({engine!r}, "wb").write(memoryview(builder.build_serialized_network(network, config)))
"""


def build_plain_engine(model: Path, engine: Path) -> Path:
    """Builds an engine for compute capability 8.9 with nothing of qdx; returns its file."""
    run_with_rtx(_BUILD.format(model=str(model), engine=str(engine)))
    return engine
