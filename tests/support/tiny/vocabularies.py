"""Small real tokenizers, made offline from a handful of sentences."""

from __future__ import annotations

import json
import math
from collections import Counter
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import (
        BertTokenizer,
        CLIPTokenizer,
        GemmaTokenizer,
        Qwen2Tokenizer,
        T5TokenizerFast,
    )

SENTENCES = (
    "a red fox on a hill",
    "two boats in the blue sea at night",
    "a photo of an astronaut riding a horse, high quality",
    "blurry, low quality, bad picture",
    "the sound of rain and a quiet piano",
    "a cat walks slowly on the grass, realistic",
)


def clip_tokenizer(*, pad_token: str = "<|endoftext|>", max_length: int = 77) -> CLIPTokenizer:
    """Make a CLIP byte-level BPE tokenizer.

    Args:
        pad_token: `<|endoftext|>`, or `!` as in the second encoder of Stable Diffusion XL.
        max_length: `model_max_length`.

    Returns:
        A tokenizer whose two special tokens have the highest ids, as in CLIP.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    alphabet = sorted(ByteLevel.alphabet())
    merges = list(byte_pairs(end="</w>"))
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *map("".join, merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(
        vocab=vocabulary, merges=merges, pad_token=pad_token, model_max_length=max_length
    )


@cache
def byte_pairs(*, start: str = "", end: str = "") -> tuple[tuple[str, str], ...]:
    """Learn byte-pair merges from the sentences, most frequent first, ties in string order.

    Args:
        start: Set before each word as a piece of its own.
        end: Joined to the last letter of each word.

    The trainer of the tokenizers library breaks ties by hash, so its result varies by process.
    """
    words = [word for line in SENTENCES for word in line.replace(",", " ,").split()]
    head = (start,) if start else ()
    pieces = [(*head, *word[:-1], word[-1] + end) for word in words]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for word in pieces for pair in pairwise(word))
        if not pairs or max(pairs.values()) < 2:
            return tuple(merges)
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = [_merged(word, best) for word in pieces]


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    result: list[str] = []
    for piece in word:
        if result and (result[-1], piece) == pair:
            result[-1] += piece
        else:
            result.append(piece)
    return tuple(result)


def t5_tokenizer(*, max_length: int = 24) -> T5TokenizerFast:
    """Make a T5 Unigram tokenizer without sentinel tokens.

    Args:
        max_length: `model_max_length`.

    Returns:
        A tokenizer with `<pad>`, `</s>`, `<unk>` at 0, 1, 2, then words, then single letters.
    """
    from transformers import T5TokenizerFast

    return T5TokenizerFast(vocab=unigram(), extra_ids=0, model_max_length=max_length)


def gemma_tokenizer(*, max_length: int = 64) -> GemmaTokenizer:
    """Make a Gemma BPE tokenizer with byte fallback.

    Args:
        max_length: `model_max_length`.

    Returns:
        A tokenizer with the five special tokens first, then the bytes, then letters and merges.
    """
    from transformers import GemmaTokenizer

    merges = list(byte_pairs(start="\u2581"))
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokens += [f"<0x{value:02X}>" for value in range(256)]
    tokens += ["\u2581", *map(chr, range(33, 127)), *map("".join, merges)]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return GemmaTokenizer(
        vocab=vocabulary,
        merges=merges,
        model_max_length=max_length,
        padding_side="right",
        add_bos_token=True,
    )


def qwen_tokenizer(*, max_length: int = 2048) -> Qwen2Tokenizer:
    """Make a Qwen 2 byte-level BPE tokenizer with the two chat marks.

    Args:
        max_length: `model_max_length`.

    Returns:
        A tokenizer with the bytes first, then merges, then the special tokens.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    merges = list(byte_pairs(start="\u0120"))
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*sorted(ByteLevel.alphabet()), *map("".join, merges), *specials]
    return Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        extra_special_tokens=specials[1:],
        model_max_length=max_length,
    )


def bert_tokenizer(*, max_length: int = 77) -> BertTokenizer:
    """Make a BERT WordPiece tokenizer.

    Args:
        max_length: `model_max_length`.

    Returns:
        A tokenizer with the five special tokens first, then words, then single letters.
    """
    from transformers import BertTokenizer

    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    words = sorted({word for line in SENTENCES for word in line.replace(",", "").split()})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters]
    tokens += [f"##{letter}" for letter in letters]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return BertTokenizer(vocab=vocabulary, model_max_length=max_length)


def unigram() -> list[tuple[str, float]]:
    """Return Unigram pieces with log probabilities: specials, words of the sentences, letters."""
    words = Counter(word for line in SENTENCES for word in line.replace(",", " ,").split())
    total = sum(words.values())
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"\u2581{word}", math.log(n / total)) for word, n in sorted(words.items())]
    letters = ["\u2581", *map(chr, range(33, 127))]
    known = {piece for piece, _ in pieces}
    return pieces + [(letter, -12.0) for letter in letters if letter not in known]


def save_for_older_readers(tokenizer: Any, folder: Path) -> None:
    """Add what transformers 4 needs beside `tokenizer.json`.

    Args:
        tokenizer: The tokenizer that was saved into the folder.
        folder: The component's folder.
    """
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # Written by transformers 5 as a list or a backend name, which transformers 4 cannot read.
    for key in ("backend", "is_local", "extra_special_tokens", "local_files_only"):
        config.pop(key, None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if type(tokenizer).__name__ == "CLIPTokenizer":
        model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        vocabulary = json.dumps(model["vocab"], ensure_ascii=False)
        (folder / "vocab.json").write_text(vocabulary + "\n", encoding="utf-8")
        merges = "\n".join(" ".join(pair) for pair in model["merges"])
        (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
