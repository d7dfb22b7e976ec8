"""Which device computes in PyTorch: the processor, or a GPU. What does not exist is an error, never another device."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import torch

from qdx.exporter.errors import InsufficientMemory, RuntimeMissing, quoted

__all__ = [
    "CPU",
    "choose_device",
    "computing_on",
    "describe_device",
    "free_device_bytes",
    "is_cpu",
]

CPU: Final = torch.device("cpu")
_CUDA: Final = re.compile(r"cuda(?::([0-9]{1,3}))?", re.ASCII)


def choose_device(text: str, say: Callable[[str], None]) -> torch.device:
    """The device that a user names.

    Args:
        text: `cpu`, `cuda` for the first GPU, `cuda:1` for another one, or `auto` for the first GPU if there is one
            and the processor otherwise.
        say: Told which device `auto` took.

    Returns:
        A device with its index.

    Raises:
        RuntimeMissing: PyTorch has no such device here; the message names those that it has.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "auto":
        device = torch.device("cuda", 0) if gpus else CPU
        say(f"device: {_with_index(device)}, chosen by `auto`")
        return device
    if text == "cpu":
        return CPU
    match = _CUDA.fullmatch(text)
    if match is None or int(match[1] or 0) >= gpus:
        there = ["cpu", *(_with_index(torch.device("cuda", index)) for index in range(gpus))]
        hint = "give one of these, or `auto`"
        if not gpus:
            hint += "; a GPU needs its driver and a build of PyTorch with CUDA"
        raise RuntimeMissing(
            f"device {quoted(text)} does not exist here, expected one of: {', '.join(there)}",
            hint=hint,
        )
    return torch.device("cuda", int(match[1] or 0))


def is_cpu(device: torch.device) -> bool:
    """Whether this is the processor, where tensors lie in the memory of the process."""
    return device.type == "cpu"


def describe_device(device: torch.device) -> str:
    """`cpu`, or `cuda: NAME` of the GPU: what the bits of a result depend on, for records."""
    return "cpu" if is_cpu(device) else f"cuda: {torch.cuda.get_device_name(device)}"


def _with_index(device: torch.device) -> str:
    return "cpu" if is_cpu(device) else f"{device} ({torch.cuda.get_device_name(device)})"


def free_device_bytes(device: torch.device) -> int:
    """Memory of a GPU that this process can still take, that which PyTorch holds in reserve included."""
    free, _ = torch.cuda.mem_get_info(device)
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free) + int(reserve)


@contextmanager
def computing_on(device: torch.device, way_out: str) -> Iterator[None]:
    """Computes float32 as float32, and with the same bits each time, while the context lasts.

    On a GPU PyTorch otherwise rounds the factors of convolutions to ten bits, and may choose kernels by their speed on
    the day. On the processor nothing changes.

    Args:
        device: Where.
        way_out: What to do where its memory runs out.

    Raises:
        InsufficientMemory: The memory of the GPU ran out.
    """
    if is_cpu(device):
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32)
    cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32 = (
        False,
        True,
        False,
        False,
    )
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InsufficientMemory(
            f"{_with_index(device)}: its memory ran out, which other programs share", hint=way_out
        ) from error
    finally:
        cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32 = before
