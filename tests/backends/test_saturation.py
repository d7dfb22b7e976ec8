"""Processors whose 8-bit kernels saturate are found."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np
import pytest

from qdx.backends import saturation
from qdx.backends.registry import get_backend


def products() -> np.ndarray:
    """Of the greatest numbers, by channel of the sum."""
    weights = saturation.greatest_weights().astype(np.int64)
    return weights[:, :, 0, 0] * saturation.greatest_inputs().astype(np.int64)[0, :, 0, 0]


def test_whole_sums_are_told_from_saturated_pairs() -> None:
    pairs = products().reshape(-1, 4, 2).sum(-1)

    assert not saturation.is_saturated(pairs.sum(-1))
    assert saturation.is_saturated(pairs.clip(-(2**15), 2**15 - 1).sum(-1))
    assert saturation.is_saturated(np.full(8, np.nan))


@pytest.mark.skipif(
    platform.machine() not in {"x86_64", "AMD64"},
    reason="OpenVINO can leave out instructions of x86 alone",
)
def test_openvino_without_vnni_is_found_to_saturate() -> None:
    code = "from qdx.backends.openvino.saturation import saturates; print(saturates())"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert found.stdout.strip() == "True"


def test_the_runtimes_agree_about_this_processor() -> None:
    assert get_backend("onnxruntime").saturates() == get_backend("openvino").saturates()
