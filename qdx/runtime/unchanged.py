"""Whether a component is still what was exported: an artifact obeys no adapter, no other parameter and no hook.

A pipeline's components look like PyTorch models, and libraries change such models in place. The modules, parameters,
hooks and attributes of a component are noted when it is attached, and compared at each call, so that nothing needs to be
known of what may change them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, ValuesView
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain
from operator import is_
from typing import Any, Final

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from qdx.exporter.capture.state import PLAIN_ATTENTION
from qdx.exporter.errors import QdxError, UsageError, quoted

__all__ = ["Unchanged"]

# Attributes that change how a module computes and not what, so that an artifact need not know of them: slices of a
# batch or of a sequence one after the other, memory traded for time in training, the kernel of attention, torch's own
# compiler, and the books that are kept of adapters: adapters themselves are modules.
_SAME_VALUES: Final = frozenset({"use_slicing", "_chunk_size", "_chunk_dim", "gradient_checkpointing",
                                 "_gradient_checkpointing_func", "_compiled_call_impl", "_is_torch_compile",
                                 "processor.slice_size", "processor.attention_op", "processor._attention_backend",
                                 "_hf_peft_config_loaded", "peft_config"})  # fmt: skip
_REGISTRY: Final = "_diffusers_hook"
_STORES: Final = ("_parameters", "_buffers")
_TABLES: Final = (*_STORES, "_modules", "_forward_hooks", "_forward_pre_hooks")
_KNOWN_LIMIT: Final = 3
_WAY_OUT: Final = (
    "change the pipeline before the export: `qdx export --lora FILE` merges a LoRA, and with --lora-ready RANK the pipeline's "
    "load_lora_weights has an effect; anything else is done in diffusers "
    "(load the original, change it, fuse and unload adapters), saved with save_pretrained and exported from that folder"
)
_MEMORY: Final = torch._C.TensorBase.untyped_storage  # noqa: SLF001  # its only name
_WRITES: Final = torch._C.TensorBase._version.__get__  # type: ignore[attr-defined]  # noqa: SLF001  # likewise
_PLAIN: Final = (bool, int, float, str, tuple, list, dict, frozenset, set)


class Unchanged:
    """What a component is when it is attached.

    Args:
        name: The pipeline's name for it.
        module: The component.
        routed: Names of its methods that others may replace on their way to the artifact.
    """

    def __init__(self, name: str, module: nn.Module, routed: AbstractSet[str]) -> None:
        self._name = name
        self._module = module
        self._routed = routed
        self._first = _State.of(module, routed)
        self._known = [self._first]

    def check(self, state: Mapping[str, str]) -> None:
        """Refuses a component that was changed since.

        Args:
            state: What the pipeline had changed when the artifact was traced, see `StateWatch`; the component is in it.

        Raises:
            UsageError: Naming the first change that has no effect on an artifact.
        """
        if any(known.is_current() for known in self._known):
            return
        now = _State.of(self._module, self._routed)
        found = [
            (path, *change)
            for path, *change in _differences(self._first, now)
            if not _is_harmless(*change) and _key(path, change[0]) not in state
        ]
        if found:
            path, *change = min(found, key=lambda one: _rank(one[1]))
            raise UsageError(
                f"{quoted('.'.join(filter(None, (self._name, path))))}: {_told(*change)} since the bundle was opened, and "
                "an artifact computes what was exported: the change would have no effect",
                hint=_WAY_OUT,
            )
        self._known = [*self._known[-_KNOWN_LIMIT:], now]


@dataclass(frozen=True)
class _State:
    """What a component consists of.

    Attributes:
        entries: By path of a module, what it holds by the name of the attribute.
        tables: Views of the dictionaries that hold it, as they are: to be compared in one go.
        objects: What was in all of them, in order.
        stores: Views of those that hold parameters and buffers.
        tensors: What was in these.
        numbers: The memory and the count of writes of each.
    """

    entries: dict[str, dict[str, Any]]
    tables: list[ValuesView[Any]]
    objects: list[Any]
    stores: list[ValuesView[Any]]
    tensors: list[Any]
    numbers: _Numbers

    @classmethod
    def of(cls, module: nn.Module, routed: AbstractSet[str]) -> _State:
        """A component's state; attributes of these names do not count in its outermost module."""
        entries: dict[str, dict[str, Any]] = {}
        tables: list[ValuesView[Any]] = []
        stores: list[ValuesView[Any]] = []
        for path, one in module.named_modules():
            own = dict(_attributes(one))
            entries[path] = {k: v for k, v in own.items() if path or k not in routed}
            tables += [table.values() for table in _tables(one)]
            stores += [vars(one)[name].values() for name in _STORES]
        tensors = list(chain.from_iterable(stores))
        objects = list(chain.from_iterable(tables))
        return cls(entries, tables, objects, stores, tensors, _Numbers.of(tensors))

    def is_current(self) -> bool:
        """Whether every dictionary still holds the same, and every tensor its values, as far as can be told."""
        tensors = list(chain.from_iterable(self.stores))
        if len(tensors) != len(self.tensors) or not all(map(is_, tensors, self.tensors)):
            return False
        try:
            same = list(chain.from_iterable(self.tables)) == self.objects
        except (
            RuntimeError,
            TypeError,
            ValueError,
            QdxError,
        ):  # arrays that are compared tell no truth
            return False
        return same and self.numbers.are_current()


@dataclass(frozen=True)
class _Numbers:
    """The values of tensors, as far as can be told without reading them.

    An assignment to `.data` changes the memory alone, an operation in place the count alone.

    Attributes:
        tensors: The tensors.
        memory: Of each.
        counted: Those of which torch counts the writes: all that were not made for inference alone.
        writes: Of each of these.
    """

    tensors: list[torch.Tensor]
    memory: list[torch.UntypedStorage]
    counted: list[torch.Tensor]
    writes: list[int]

    @classmethod
    def of(cls, found: Iterable[torch.Tensor | None]) -> _Numbers:
        """Those of the tensors among these."""
        tensors = [one for one in found if one is not None]
        counted = [one for one in tensors if not one.is_inference()]
        return cls(tensors, list(map(_MEMORY, tensors)), counted, list(map(_WRITES, counted)))

    def are_current(self) -> bool:
        """Whether nothing was written."""
        return (
            all(map(is_, map(_MEMORY, self.tensors), self.memory))
            and list(map(_WRITES, self.counted)) == self.writes
        )

    def changed(self) -> set[int]:
        """The identities of those into which something was written."""
        moved = [
            one
            for one, memory in zip(self.tensors, self.memory, strict=True)
            if _MEMORY(one) is not memory
        ]
        written = [
            one
            for one, writes in zip(self.counted, self.writes, strict=True)
            if _WRITES(one) != writes
        ]
        # What has no values has the same as before, in whatever layout of memory.
        return {id(one) for one in (*moved, *written) if not _has_no_values(one)}


def _helpers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Objects of diffusers that a module holds beside its modules, such as attention processors, by attribute."""
    for name, value in vars(module).items():
        if (
            type(value).__module__.startswith("diffusers.")
            and not isinstance(value, nn.Module | dict)
            and hasattr(value, "__dict__")
        ):
            yield name, value


def _tables(module: nn.Module) -> list[dict[str, Any]]:
    found = [vars(module), *(vars(module)[name] for name in _TABLES if name not in _STORES)]
    return [*found, *(vars(value) for _, value in _helpers(module))]


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    own = vars(module)
    yield from ((name, value) for name, value in own.items() if name not in _TABLES)
    for table in _TABLES:
        yield from ((f"{table}.{name}", value) for name, value in own[table].items())
    for name, helper in _helpers(module):
        yield from ((f"{name}.{inner}", value) for inner, value in vars(helper).items())


def _differences(before: _State, now: _State) -> Iterator[tuple[str, str, Any, Any]]:
    """Path, attribute, and both values; a missing one is `_NOTHING`."""
    for path in {**before.entries, **now.entries}:
        old, new = before.entries.get(path), now.entries.get(path)
        if old is None or new is None:
            continue  # that a module came or went shows in the one that holds it
        for name in {**old, **new}:
            one, other = old.get(name, _NOTHING), new.get(name, _NOTHING)
            if one is not other and not _equal(one, other):
                yield path, name, one, other
    written = before.numbers.changed()
    for path, held in now.entries.items():
        yield from (
            (path, name, value, value) for name, value in held.items() if id(value) in written
        )


def _has_no_values(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, FakeTensor) and tensor.untyped_storage().device.type == "meta"


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and type(one) is type(other):
        return _have_equal_values(one, other)
    return type(one) is type(other) and isinstance(one, _PLAIN) and bool(one == other)


def _have_equal_values(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether both are the same numbers: in one memory, as after a move to where it is already, or known and equal."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if _MEMORY(one) is _MEMORY(other):
        return one.stride() == other.stride() and one.storage_offset() == other.storage_offset()
    is_known = not isinstance(one, FakeTensor) and not isinstance(other, FakeTensor)
    return is_known and torch.equal(one, other)


def _is_harmless(attribute: str, before: Any, after: Any) -> bool:
    if attribute in _SAME_VALUES:
        return True
    name, _, inner = attribute.partition(".")
    if name == _REGISTRY:  # pipelines make an empty one to tell branches of guidance apart
        hooks = (one if inner else getattr(one, "hooks", None) for one in (before, after))
        return inner not in ("", "hooks") or not any(one for one in hooks if one is not _NOTHING)
    kinds = {PLAIN_ATTENTION.get(type(one).__name__, "") for one in (before, after)}
    return len(kinds) == 1 and kinds != {""}


def _key(path: str, attribute: str) -> str:
    """What a state calls the attribute."""
    table, _, name = attribute.partition(".")
    return ".".join(filter(None, (path, name if table == "_modules" else table)))


def _rank(attribute: str) -> int:
    """What tells most comes first: a replaced part, then its processor, then anything else."""
    return 0 if attribute.startswith("_modules.") else 1 if "processor" in attribute else 2


def _told(attribute: str, before: Any, after: Any) -> str:
    """What happened, in words that `since the bundle was opened` follows."""
    table, _, name = attribute.partition(".")
    if table in ("_parameters", "_buffers"):
        kind = "parameter" if table == "_parameters" else "buffer"
        return f"its {kind} {quoted(name)} was {_changed(before, after)}"
    if table == "_modules":
        return (
            f"its part {quoted(name)} ({_class(before)}) was {_changed(before, after)}{_by(after)}"
        )
    if table in ("_forward_hooks", "_forward_pre_hooks"):
        return "a hook was registered" if before is _NOTHING else "a hook was removed"
    if attribute == "training":
        return "it was put into training mode"
    if "processor" in attribute:
        return (
            f"its {quoted(attribute)} ({_class(before)}) was {_changed(before, after)}{_by(after)}"
        )
    return f"its attribute {quoted(attribute)} was {_changed(before, after)}"


def _changed(before: Any, after: Any) -> str:
    if before is _NOTHING:
        return "added"
    return "removed" if after is _NOTHING else "changed"


def _by(after: Any) -> str:
    return "" if after is _NOTHING else f" to {quoted(_class(after))}"


def _class(value: Any) -> str:
    if value is _NOTHING or value is None:
        return "none"
    library = type(value).__module__.partition(".")[0]
    return f"{library}.{type(value).__name__}"


class _Nothing:
    """The value of an attribute that is not there."""


_NOTHING: Final = _Nothing()
