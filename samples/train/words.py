"""The tokenizer of the captions: byte-pair merges learned from all captions of the grammar."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from samples.scenes import Caption
from samples.storing import strip_paths, write_json

LENGTH = 16
START, END = "<|startoftext|>", "<|endoftext|>"


def train_words(captions: tuple[Caption, ...], folder: Path) -> CLIPTokenizer:
    """Learns merges until every word of the captions is one token, and writes the tokenizer.

    Args:
        captions: Whose words are learned.
        folder: Where vocabulary, merges and configuration go.

    Returns:
        The tokenizer; it pads and truncates to ``LENGTH`` tokens when asked to.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    learner.train_from_iterator(
        (str(caption) for caption in captions),
        trainers.BpeTrainer(
            vocab_size=1000,
            end_of_word_suffix="</w>",
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    pieces = [*alphabet, *(f"{letter}</w>" for letter in alphabet)]
    pieces += [left + right for left, right in merges] + [START, END]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    words = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)
    words.save_pretrained(folder)
    write_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    write_json(folder / "special_tokens_map.json", special)
    write_json(
        folder / "tokenizer_config.json",
        {
            **special,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": True,
            "do_lower_case": True,
            "errors": "replace",
            "model_max_length": LENGTH,
            "tokenizer_class": "CLIPTokenizer",
        },
    )
    strip_paths(folder)
    return CLIPTokenizer.from_pretrained(folder)


def copy_words(source: Path, target: Path) -> None:
    """Copies the tokenizer's files, so that every pipeline holds all of them.

    Args:
        source: Folder of a tokenizer that ``train_words`` wrote.
        target: Folder that gets the same files.
    """
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
