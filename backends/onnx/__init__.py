"""Lowering from ATen to ONNX, shared by the runtimes that read ONNX."""
