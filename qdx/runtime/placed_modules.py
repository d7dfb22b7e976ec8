"""Components in PyTorch that compute on a GPU, in a pipeline that stays on the processor.

A pipeline asks its components where they are, and puts its own tensors there. So their parameters stay where they are,
often pages of files, and every operation of a component takes copies of them on the GPU. Copies are kept while there is
room; what does not fit is copied for each operation and dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from qdx.exporter.capture.distributions import map_tensors
from qdx.exporter.capture.dry_run import intercept
from qdx.exporter.devices import CPU, computing_on, free_device_bytes, is_cpu
from qdx.exporter.graph.execute.placed_calls import placed_arguments
from qdx.exporter.graph.execute.upload import Upload

if TYPE_CHECKING:
    from torch import nn

    from qdx.exporter.capture.calls import LiveCall

__all__ = ["Copies", "ModulePlacer", "modules_on"]

_WAY_OUT: Final = "give --device cpu, or a smaller call"
_SHARE: Final = 0.6
"""Of the free memory of a GPU, for copies of parameters; the rest is for activations."""


@contextmanager
def modules_on(modules: Mapping[str, nn.Module], device: torch.device) -> Iterator[None]:
    """While active, these components compute on a device; tensors of calls come from and go to the processor.

    Args:
        modules: Components by name, with their weights.
        device: The device; on the processor nothing changes.
    """
    if is_cpu(device) or not modules:
        yield
        return
    placer = ModulePlacer(device, modules)
    with intercept(dict(modules), placer.compute):
        yield


class Copies:
    """Copies on a device of tensors that stay where they are, as far as a budget goes.

    Args:
        device: The device.
        limit_bytes: The budget; None takes a share of what is free when the first copy is made.
    """

    def __init__(self, device: torch.device, limit_bytes: int | None = None) -> None:
        self.device = device
        self._limit_bytes = limit_bytes
        self._upload = Upload(device)
        self._kept: dict[str, _Kept] = {}
        self._now = _Kept()

    @property
    def size_bytes(self) -> int:
        """Memory of the copies."""
        return sum(kept.size_bytes for kept in self._kept.values())

    def begin(self, name: str, module: nn.Module) -> None:
        """A component is about to compute. Copies for others make room, those used longest ago first."""
        before = self._kept.pop(name, _Kept())
        self._now = self._kept[name] = before.for_tensors([*module.parameters(), *module.buffers()])
        if self._limit_bytes is None:
            self._limit_bytes = int(free_device_bytes(self.device) * _SHARE)
        for other in [one for one in self._kept if one != name]:
            if self.size_bytes + self._now.missing_bytes <= self._limit_bytes:
                break
            del self._kept[other]

    def drop(self, name: str) -> None:
        """Lets go of the copies for a component."""
        self._kept.pop(name, None)

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor on the device; a copy of a parameter or buffer of the computing component is kept."""
        if not is_cpu(tensor.device):
            return tensor
        found = self._now.copies.get(id(tensor))
        if found is not None:
            return found
        copy = self._upload(tensor)
        assert self._limit_bytes is not None
        if id(tensor) in self._now.originals and self.size_bytes + copy.nbytes <= self._limit_bytes:
            self._now.copies[id(tensor)] = copy
            self._now.size_bytes += copy.nbytes
        return copy


@dataclass
class _Kept:
    """Copies for one component, by the identity of the tensors, which live as long and keep theirs."""

    originals: dict[int, torch.Tensor] = field(default_factory=dict)
    copies: dict[int, torch.Tensor] = field(default_factory=dict)
    size_bytes: int = 0

    @property
    def missing_bytes(self) -> int:
        """Memory of the copies that are still to be made."""
        return sum(one.nbytes for one in self.originals.values()) - self.size_bytes

    def for_tensors(self, tensors: Iterable[torch.Tensor]) -> _Kept:
        """The copies of those of these tensors of which there are copies."""
        originals = {id(one): one for one in tensors if is_cpu(one.device)}
        copies = {key: copy for key, copy in self.copies.items() if key in originals}
        return _Kept(originals, copies, sum(copy.nbytes for copy in copies.values()))


class ModulePlacer:
    """Computes calls of components on a device.

    Args:
        device: The device.
        modules: The components by name.
        limit_bytes: Memory for copies of their parameters; None takes a share of what is free.
    """

    def __init__(
        self,
        device: torch.device,
        modules: Mapping[str, nn.Module],
        limit_bytes: int | None = None,
    ) -> None:
        self.copies = Copies(device, limit_bytes)
        self._modules = modules

    def compute(self, call: LiveCall) -> Any:
        """What a component answers; its tensors lie in the memory of the process."""
        self.copies.begin(call.component, self._modules[call.component])
        given = replace(call, arguments=pytree.tree_map(self._there, call.arguments))
        with torch.no_grad(), computing_on(self.copies.device, _WAY_OUT), _Placing(self.copies):
            answer = given.compute()
        return map_tensors(answer, lambda tensor: tensor.to(CPU))

    def _there(self, value: Any) -> Any:
        return self.copies.of(value) if isinstance(value, torch.Tensor) else value


class _Placing(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not annotate it
    """Every operator takes its tensors on the device, and makes them there."""

    def __init__(self, copies: Copies) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # likewise
        self._copies = copies

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Calls one operator."""
        del types
        args, kwargs = placed_arguments(func, args, kwargs or {}, self._copies.device)
        args, kwargs = pytree.tree_map_only(torch.Tensor, self._copies.of, (args, kwargs))
        return func(*args, **kwargs)
