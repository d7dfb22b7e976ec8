"""Tokenizers by the name of their class, each with a small vocabulary of its own kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tests.support.tiny import vocabularies

TOKENIZER_OF: Final = {
    "Gemma2Model": "GemmaTokenizer",
    "GemmaModel": "GemmaTokenizer",
    "GlmModel": "Qwen2Tokenizer",
    "LlamaForCausalLM": "TokenizersBackend",
    "Mistral3Model": "Qwen2Tokenizer",
    "Qwen2_5_VLForConditionalGeneration": "Qwen2Tokenizer",
    "Qwen2_5_VLTextModel": "Qwen2Tokenizer",
    "Qwen3ForCausalLM": "Qwen2Tokenizer",
    "Qwen3Model": "Qwen2Tokenizer",
    "Qwen3VLForConditionalGeneration": "Qwen2Tokenizer",
    "Qwen3VLModel": "Qwen2Tokenizer",
    "SmolLM3ForCausalLM": "Qwen2Tokenizer",
    "T5EncoderModel": "T5Tokenizer",
    "T5GemmaEncoder": "GemmaTokenizer",
    "T5GemmaEncoderModel": "GemmaTokenizer",
    "UMT5EncoderModel": "T5Tokenizer",
}
"""Encoder -> the tokenizer that its pipelines only call `AutoTokenizer`."""
ANY: Final = frozenset(
    {"AutoTokenizer", "PreTrainedTokenizerBase", "PreTrainedTokenizer", "PythonBackend"}
)
"""Names in signatures that leave the class to the encoder."""

_CHAT: Final = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def is_tokenizer(name: str) -> bool:
    """Whether a class is one of a tokenizer of words."""
    return name in ANY or name in _MAKERS


def make_tokenizer(name: str) -> Any:
    """A tokenizer of a class."""
    return _MAKERS[name]()


def _qwen() -> Any:
    tokenizer = vocabularies.qwen_tokenizer()
    tokenizer.chat_template = _CHAT
    return tokenizer


def _byt5() -> Any:
    from transformers import ByT5Tokenizer

    return ByT5Tokenizer()


def _byte_tokens() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: at for at, token in enumerate(dict.fromkeys(tokens))}


def _gpt2() -> Any:
    from transformers import GPT2Tokenizer

    vocabulary = _numbered([*_byte_tokens(), "<|endoftext|>"])
    return GPT2Tokenizer(vocab=vocabulary, merges=[], pad_token="<|endoftext|>")


def _roberta() -> Any:
    from transformers import RobertaTokenizer

    vocabulary = _numbered(["<s>", "<pad>", "</s>", "<unk>", *_byte_tokens(), "<mask>"])
    return RobertaTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def _xlm_roberta() -> Any:
    from transformers import XLMRobertaTokenizer

    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [piece for piece in vocabularies.unigram() if not piece[0].startswith("<")]
    return XLMRobertaTokenizer(vocab=pieces, model_max_length=77)


def _llama() -> Any:
    from transformers import LlamaTokenizer

    all_bytes = [f"<0x{value:02X}>" for value in range(256)]
    letters = ["\u2581", *map(chr, range(33, 127))]
    tokenizer = LlamaTokenizer(
        vocab=_numbered(["<unk>", "<s>", "</s>", "<pad>", *all_bytes, *letters]),
        merges=[],
        pad_token="<pad>",
        model_max_length=256,
    )
    tokenizer.padding_side = "left"
    return tokenizer


_MAKERS: Final[dict[str, Callable[[], Any]]] = {
    "BertTokenizer": vocabularies.bert_tokenizer,
    "ByT5Tokenizer": _byt5,
    "CLIPTokenizer": vocabularies.clip_tokenizer,
    "GPT2Tokenizer": _gpt2,
    "GemmaTokenizer": vocabularies.gemma_tokenizer,
    "LlamaTokenizer": _llama,
    "Qwen2Tokenizer": _qwen,
    "RobertaTokenizer": _roberta,
    "T5Tokenizer": vocabularies.t5_tokenizer,
    "T5TokenizerFast": vocabularies.t5_tokenizer,
    "TokenizersBackend": _llama,
    "XLMRobertaTokenizer": _xlm_roberta,
}
