"""What this processor's 8-bit kernels compute."""

from __future__ import annotations

from qdx.backends.onnxruntime.saturation import saturates

SEVEN_BITS = saturates()
"""Whether weights need 7 bits (`reduce_range`) for a runtime to compute what the quantized graph does."""
