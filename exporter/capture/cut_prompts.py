"""Prompts that a tokenizer cuts to the length that its text encoder reads, seen while a pipeline calls it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from qdx.exporter.errors import quoted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Cut", "Tokenizing", "cut_words", "prompt_words", "tokenizing"]

_UNLIMITED: Final = 10**9
"""Tokenizers without a length of their own say one far beyond this."""
_SPECIAL: Final = 8
"""More special tokens than any text has."""
_OWN: Final = "_qdx_own_class"
_WHOLE: Final = (None, False, "do_not_truncate")
_EXAMPLES: Final = 2
_SHOWN: Final = 60


@dataclass(frozen=True)
class Cut:
    """One text that was cut.

    Attributes:
        tokenizer: The pipeline's name for the tokenizer.
        text: The text.
        tokens: How many tokens it has, with special ones.
        limit: How many of them are read.
    """

    tokenizer: str
    text: str
    tokens: int
    limit: int


@dataclass(frozen=True)
class _Call:
    name: str
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    text: str
    limit: int
    special: bool

    def cut(self, text: str) -> Cut | None:
        """What the same call does to a text; None where it reads all of it."""
        if len(text.encode()) + _SPECIAL <= self.limit:  # a token is a byte at least
            return None
        encoded = self.tokenizer(
            text, add_special_tokens=self.special, truncation=False, verbose=False
        )
        tokens = len(encoded["input_ids"])
        return Cut(self.name, text, tokens, self.limit) if tokens > self.limit else None


class Tokenizing:
    """The calls of a pipeline's tokenizers that cut what is too long."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str, int], _Call] = {}

    def add(self, call: _Call) -> None:
        """Takes a call; the same text is tokenized for several purposes, and counts once."""
        self._calls.setdefault((call.name, call.text, call.limit), call)

    def cuts(self) -> list[Cut]:
        """The texts that were cut, in the order in which they came."""
        return [cut for call in list(self._calls.values()) if (cut := call.cut(call.text))]

    def cuts_of(self, own: Sequence[str], others: Sequence[str]) -> list[Cut]:
        """The texts that the same calls would cut with other prompts.

        Args:
            own: The prompts of the calls that were seen.
            others: What stands in their place, wherever a call's text holds one of them.
        """
        found: dict[tuple[str, str], Cut] = {}
        for call in self._calls.values():
            held = next((one for one in own if one and one in call.text), None)
            for prompt in others if held is not None else ():
                cut = call.cut(call.text.replace(held or "", prompt))
                if cut is not None:
                    found.setdefault((cut.tokenizer, cut.text), cut)
        return list(found.values())


@contextmanager
def tokenizing(pipeline: Any) -> Iterator[Tokenizing]:
    """Watches a pipeline's tokenizers while the context lasts; what they answer stays the same."""
    from transformers import PreTrainedTokenizerBase

    found = Tokenizing()
    tokenizers = {
        name: one
        for name, one in vars(pipeline).items()
        if isinstance(one, PreTrainedTokenizerBase)
    }
    # Another thread may be watching, too: what is left behind is the tokenizer's own class.
    kinds = {name: getattr(type(one), _OWN, type(one)) for name, one in tokenizers.items()}
    for name, tokenizer in tokenizers.items():
        tokenizer.__class__ = _watched(name, kinds[name], found)
    try:
        yield found
    finally:
        for name, tokenizer in tokenizers.items():
            tokenizer.__class__ = kinds[name]


def _watched(name: str, kind: type[Any], found: Tokenizing) -> type[Any]:
    """The class of a tokenizer, with calls that are told of."""
    original = kind.__call__

    @functools.wraps(original)
    def call(self: Any, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        answer = original(self, text, *args, **kwargs)
        limit = kwargs.get("max_length") or self.model_max_length
        if kwargs.get("truncation") not in _WHOLE and isinstance(limit, int) and limit < _UNLIMITED:
            special = kwargs.get("add_special_tokens", True)
            for one in [text] if isinstance(text, str) else text or ():
                if isinstance(one, str):
                    found.add(_Call(name, self, one, limit, special))
        return answer

    members = {
        "__call__": call,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        _OWN: kind,
    }
    return type(kind.__name__, (kind,), members)


def cut_words(cuts: Sequence[Cut], *, longer: bool) -> str:
    """Returns in words which texts are cut, the first ones with their numbers.

    Args:
        cuts: What was cut; one at least.
        longer: Whether the pipeline takes `max_sequence_length`.
    """
    shown = [
        f"{prompt_words(cut.text)} has {cut.tokens} tokens, and `{cut.tokenizer}` reads {cut.limit}"
        for cut in cuts[:_EXAMPLES]
    ]
    more = len(cuts) - len(shown)
    rest = f"; {more} more" if more > 0 else ""
    way = ", or raise `max_sequence_length` where the text encoder takes it" if longer else ""
    noun, them = ("a prompt is", "it") if len(cuts) == 1 else ("prompts are", "them")
    return f"{noun} cut, and what comes after is not read: {'; '.join(shown)}{rest}; shorten {them}{way}"


def prompt_words(text: str) -> str:
    """Returns a prompt, or how it begins, in backticks."""
    return quoted(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
