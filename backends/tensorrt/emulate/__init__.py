"""What a model file for TensorRT says, executed by ONNX Runtime."""
