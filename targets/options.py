"""The options of runtimes that a file may set: a target of a user's, or the one that a bundle brings along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["SAFE_OPTIONS"]

SAFE_OPTIONS: Final[Mapping[str, frozenset[str]]] = {
    "coreml": frozenset({"compute_units"}),
    "onnxruntime": frozenset(
        {
            "graph_optimization_level",
            "optimization.disable_specified_optimizers",
            "optimization.enable_cast_chain_elimination",
            "optimization.enable_gelu_approximation",
            "session.disable_double_qdq_remover",
            "session.disable_prepacking",
            "session.disable_qdq_constant_folding",
            "session.disable_quant_qdq",
            "session.enable_dq_matmulnbits_fusion",
            "session.enable_quant_qdq_cleanup",
            "session.inter_op.allow_spinning",
            "session.intra_op.allow_spinning",
            "session.qdq_matmulnbits_accuracy_level",
            "session.qdq_matmulnbits_block_size",
            "session.qdqisint8allowed",
            "session.set_denormal_as_zero",
            "session.x64quantprecision",
        }
    ),
    "openvino": frozenset(
        {
            "CPU_DENORMALS_OPTIMIZATION",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE",
            "ENABLE_CPU_PINNING",
            "ENABLE_HYPER_THREADING",
            "EXECUTION_MODE_HINT",
            "INFERENCE_PRECISION_HINT",
            "NUM_STREAMS",
            "PERFORMANCE_HINT",
            "SCHEDULING_CORE_TYPE",
        }
    ),
    "tensorrt": frozenset({"cuda_graph", "weight_streaming_budget_bytes"}),
    "tensorrt-rtx": frozenset(
        {"cuda_graph", "kernel_specialization", "weight_streaming_budget_bytes"}
    ),
}
"""By runtime, those that change numbers, speed or memory and nothing else.

A runtime also has options that write files (ONNX Runtime's `session.optimized_model_filepath` and
`session.enable_profiling`, OpenVINO's `CACHE_DIR`), read others than the bundle's (`WEIGHTS_PATH`,
`session.model_external_initializers_file_folder_path`, `ep.context_file_path`) or load libraries. What is not listed
is refused, so an option that a later version adds is refused until someone has read what it does. One whose value is
outside its range is refused by the runtime.
"""
