from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
import torch

from qdx.backends.tensorrt.engine.package import compute_capability, device_name, tensorrt
from qdx.backends.tensorrt.flavour import RTX
from qdx.exporter.errors import RuntimeMissing


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_without_the_package_it_is_said_how_to_install_it():
    with pytest.raises(RuntimeMissing, match="needs the package tensorrt") as caught:
        tensorrt()

    assert caught.value.hint == 'pip install "qdx[tensorrt]"'


def test_a_package_that_cannot_be_imported_is_installed_again(tmp_path, monkeypatch):
    (tmp_path / "tensorrt_rtx.py").write_text(
        "raise ImportError('libtensorrt_rtx.so.1: cannot open shared object file')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt_rtx", raising=False)
    with pytest.raises(
        RuntimeMissing, match=r"needs the package tensorrt_rtx: libtensor"
    ) as caught:
        tensorrt(RTX)

    assert caught.value.hint == 'pip install --force-reinstall "tensorrt-rtx-cu13>=1.7,<2.0"'


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
@pytest.mark.parametrize("asked", [compute_capability, device_name])
def test_without_a_device_it_is_said_that_there_is_none(asked):
    with pytest.raises(RuntimeMissing, match="no NVIDIA device 0: PyTorch sees 0"):
        asked()
