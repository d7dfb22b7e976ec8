"""Arrays for ONNX models."""

from __future__ import annotations

import numpy as np
import torch


def arrays(inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in inputs.items()}
