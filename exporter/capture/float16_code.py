"""A module's own Python as it runs in float16, while everything is computed in float32.

Libraries guard what float16 cannot hold where, and only where, a tensor is float16: they clamp sums of residuals, compute
a product in float32, or ask whether anything is infinite. A graph that is traced in float32 has none of that. So a graph
for float16 is traced in float32 with tensors that call themselves what they would be in a model loaded in float16; it
computes the same, with the guards in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Final

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["Float16Code", "kept_parameters", "remove_traces"]

_KEPT: Final = ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")
"""Where classes of diffusers and transformers name the parameters that they load in float32 when asked for float16."""
_NAMED: Final = {"half": torch.float16, "float": torch.float32}
"""Methods that convert to a type that their name tells."""
_LIKE: Final = frozenset({"to", "type_as"})
_TESTS: Final = {"isinf": True, "isnan": True, "isfinite": False}
"""What tests of elements answer of one that has left float16."""
_ALL: Final = {True: "any", False: "all"}
"""How a test of elements becomes one of the tensor: anything is infinite, or not all is finite."""
_NOT: Final = frozenset({"logical_not", "bitwise_not", "__invert__"})


def kept_parameters(module: nn.Module) -> frozenset[str]:
    """Names of the parameters that the module's library loads in float32 where it is asked for float16."""
    parts = {part for name in _KEPT for part in getattr(module, name, None) or ()}
    return frozenset(
        name
        for name, _ in module.named_parameters(remove_duplicate=False)
        if any(f".{part}." in f".{name}." for part in parts)
    )


class Float16Code(TorchFunctionMode):
    """While active, tensors of float32 call themselves float16 where a model loaded in float16 has such.

    Types follow from each other as torch promotes them: what was made or cast to float32 is float32, and what is computed
    from it. Conversions to float16 leave tensors as they are. A test whether anything has left float16 is answered yes, so
    that what is done then stands in the graph for all calls.
    """

    def __init__(self, module: nn.Module) -> None:
        """Prepares it.

        Args:
            module: As it is called; parameters and inputs count as float16.
        """
        super().__init__()
        self._types: MutableMapping[torch.Tensor, torch.dtype] = WeakTensorKeyDictionary()
        self._tests: MutableMapping[torch.Tensor, bool] = WeakTensorKeyDictionary()
        self._answers: MutableMapping[torch.Tensor, bool] = WeakTensorKeyDictionary()
        kept = kept_parameters(module)
        for name, parameter in module.named_parameters(remove_duplicate=False):
            if name in kept:
                self._types[parameter] = torch.float32

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Computes an operation, or tells the type of a tensor."""
        del types
        if getattr(func, "__self__", None) is torch.Tensor.dtype:
            return self._told(args[0])
        name = str(getattr(func, "__name__", ""))
        if args and name in {"__bool__", "item"} and self._answer(args[0]) is not None:
            return self._answer(args[0])
        if name == "where" and len(args) == 3 and (chosen := self._answer(args[0])) is not None:
            return args[1] if chosen else args[2]
        given = dict(kwargs or {})
        asked = self._asked(name, args, given)
        if name == "half":
            func = torch.Tensor.float
        result = func(*map(_computed, args), **{key: _computed(v) for key, v in given.items()})
        if asked is not None and args and result is args[0] and self._told(result) is not asked:
            result = result.detach()  # one of another type would be another tensor
        self._note(name, (args, given), result, asked)
        return result

    def _told(self, tensor: torch.Tensor) -> torch.dtype:
        """What a tensor calls itself."""
        dtype = tensor.dtype
        return self._types.get(tensor, torch.float16) if dtype is torch.float32 else dtype

    def _answer(self, tensor: Any) -> bool | None:
        return self._answers.get(tensor) if isinstance(tensor, torch.Tensor) else None

    def _asked(
        self, name: str, args: tuple[Any, ...], given: Mapping[str, Any]
    ) -> torch.dtype | None:
        """The type that an operation asks for; None where it follows from what it reads."""
        if name in _NAMED:
            return _NAMED[name]
        values = (*args, *given.values())
        dtypes = [value for value in values if isinstance(value, torch.dtype)]
        if name in _LIKE and not dtypes:
            others = [value for value in values[1:] if isinstance(value, torch.Tensor)]
            dtypes = [self._told(other) for other in others]
        return dtypes[0] if dtypes else None

    def _note(self, name: str, given: Any, result: Any, asked: torch.dtype | None) -> None:
        """Notes what the results call themselves, and which tests they are."""
        read = [value for value in tree_leaves(given) if isinstance(value, torch.Tensor)]
        made = [value for value in tree_leaves(result) if isinstance(value, torch.Tensor)]
        dtype = asked or self._promoted(read)
        for tensor in made:
            written = any(tensor is one for one in read)  # a tensor that is written keeps its type
            if tensor.dtype is torch.float32 and (asked is not None or not written):
                self._types[tensor] = dtype
        if read and len(made) == 1:
            self._note_test(name, given[0][1:], read[0], made[0])

    def _note_test(
        self, name: str, options: tuple[Any, ...], read: torch.Tensor, made: torch.Tensor
    ) -> None:
        """Notes a test whether elements, or any element of a tensor, have left float16."""
        if name in _TESTS and self._told(read) is torch.float16:
            self._tests[made] = _TESTS[name]
            return
        for noted in (self._tests, self._answers):
            if name in _NOT and read in noted:
                noted[made] = not noted[read]
        outcome = self._tests.get(read)
        if outcome is not None and name == _ALL[outcome] and not options:
            self._answers[made] = outcome

    def _promoted(self, read: Iterable[torch.Tensor]) -> torch.dtype:
        """The type of what is computed from tensors; torch's default where they hold no fractions."""
        floats = [tensor for tensor in read if tensor.is_floating_point()]
        counting = [tensor for tensor in floats if tensor.dim()] or floats
        halves = bool(counting) and all(self._told(one) is torch.float16 for one in counting)
        return torch.float16 if halves else torch.float32


def remove_traces(program: ExportedProgram) -> None:
    """Removes from a program what `Float16Code` left in it and nothing needs: answered tests, and tensors told apart."""
    nodes = program.graph
    results = {spec.arg.name for spec in program.graph_signature.output_specs}
    for node in reversed(nodes.nodes):
        name = getattr(getattr(node.target, "overloadpacket", None), "__name__", "")
        if name == "detach" and node.name not in results:
            node.replace_all_uses_with(node.args[0])
        unread = name in {"detach", *_TESTS, *_NOT, "any", "all"} and not node.users
        if unread:
            nodes.erase_node(node)


def _computed(value: Any) -> Any:
    """An argument with float32 in the place of float16."""
    return torch.float32 if value is torch.float16 else value
