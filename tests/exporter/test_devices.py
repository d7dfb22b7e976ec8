"""Devices: what exists is chosen, and nothing else is chosen in its place."""

from __future__ import annotations

import pytest
import torch

from qdx.exporter.devices import CPU, choose_device, computing_on, describe_device
from qdx.exporter.errors import RuntimeMissing

GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0


def test_the_processor_is_always_there():
    said = []
    assert choose_device("cpu", said.append) == CPU
    assert describe_device(CPU) == "cpu"
    assert not said


def test_auto_says_what_it_took():
    said = []
    device = choose_device("auto", said.append)
    assert device.type == ("cuda" if GPUS else "cpu")
    (line,) = said
    assert line.startswith(f"device: {device}")
    assert "auto" in line


@pytest.mark.parametrize("text", ["cuda:99", "gpu", "CPU", "", "cuda:", "cuda:-1", "cuda:٣", "mps", "cuda\n"])  # fmt: skip
def test_a_device_that_does_not_exist_is_an_error_that_names_those_that_do(text):
    with pytest.raises(RuntimeMissing, match="expected one of: cpu") as raised:
        choose_device(text, pytest.fail)
    assert raised.value.exit_code == 4
    assert raised.value.message.count("cuda:0") == (1 if GPUS else 0)


@pytest.mark.skipif(GPUS > 0, reason="there is a GPU")
def test_without_a_gpu_none_is_chosen():
    with pytest.raises(RuntimeMissing, match="`cuda` does not exist here") as raised:
        choose_device("cuda", pytest.fail)
    assert "build of PyTorch with CUDA" in str(raised.value.hint)


def test_a_gpu_computes_float32_as_float32_and_is_left_as_it_was():
    flags = torch.backends.cudnn.flags(allow_tf32=True, deterministic=False, benchmark=True)
    with flags:
        with computing_on(torch.device("cuda", 0), "a way out"):
            assert not torch.backends.cudnn.allow_tf32
            assert not torch.backends.cuda.matmul.allow_tf32
            assert torch.backends.cudnn.deterministic
            assert not torch.backends.cudnn.benchmark
        assert torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.benchmark
        with computing_on(CPU, "a way out"):
            assert torch.backends.cudnn.allow_tf32


@pytest.mark.gpu
@pytest.mark.skipif(not GPUS, reason="no GPU")
def test_memory_that_runs_out_on_a_gpu_is_told_with_a_way_out():
    from qdx.exporter.errors import InsufficientMemory

    device = choose_device("cuda", pytest.fail)
    with (
        pytest.raises(InsufficientMemory, match="memory ran out") as raised,
        computing_on(device, "ask for less"),
    ):
        torch.empty(2**50, dtype=torch.uint8, device=device)
    assert raised.value.hint == "ask for less"
