"""Names of TensorRT's Python API that some supported version lacks.

From the diff of the bindings' source of 10.16 with those of 11.4, and from the changelog. What qdx uses stands
in neither table, so that one path serves every version from 10.12 on.
"""

from __future__ import annotations

GONE_IN_11 = {
    "BuilderFlag": "FP16 BF16 INT8 FP8 INT4 FP4 OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS "
    "REJECT_EMPTY_ALGORITHMS WEIGHTLESS",
    "NetworkDefinitionCreationFlag": "EXPLICIT_BATCH",
    "IBuilderConfig": "int8_calibrator set_calibration_profile get_calibration_profile set_quantization_flag "
    "algorithm_selector quantization_flags",
    "Builder": "platform_has_fast_fp16 platform_has_fast_int8 platform_has_tf32",
    "ICudaEngine": "device_memory_size get_device_memory_size_for_profile weight_streaming_budget "
    "create_execution_context_without_device_memory has_implicit_batch_dimension",
    "IExecutionContext": "all_shape_inputs_specified",
    "OnnxParser": "supports_model parse_with_weight_descriptors",
    "ITensor": "dynamic_range set_dynamic_range",
    "ILayer": "precision precision_is_set set_output_type reset_precision",
    "INormalizationLayer": "compute_precision",
    "TacticSource": "CUBLAS CUBLAS_LT CUDNN",
    "PreviewFeature": "PROFILE_SHARING_0806",
}
NEW_SINCE_10_12 = {
    "OnnxParser": {"load_model_proto": "10.13", "load_initializer": "10.13", "parse_model_proto": "10.13"},
    "OnnxParserRefitter": {
        "load_model_proto": "10.13",
        "load_initializer": "10.13",
        "refit_model_proto": "10.13",
    },
    "INetworkDefinition": {
        "add_attention": "10.14",
        "add_normalization_v2": "10.15",
        "add_attention_v2": "11.0",
    },
    "IBuilderConfig": {"build_route": "11.0", "all_build_routes": "11.0"},
    "IOptimizationProfile": {"profile_stream": "11.0"},
    "Refitter": {"release_refit_resources": "11.0"},
}  # fmt: skip
"""First version by name."""
