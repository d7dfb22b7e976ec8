"""Tokenizers as OpenVINO models, which OpenVINO GenAI reads in place of the original files.

`openvino-tokenizers` converts them. What comes out is compared with the original before it is
written; a tokenizer that cannot be converted is left out and reported.

Known difference: a punctuation mark that is also the padding token (the `!` of the second encoder
of Stable Diffusion XL) is always the padding token in transformers, and text in OpenVINO.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdx.backends.openvino.package import core, openvino
from qdx.exporter.errors import StorageError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["MODEL_FILE", "PACKAGE", "add_tokenizers"]

PACKAGE = "openvino_tokenizers"
MODEL_FILE = "openvino_tokenizer.xml"

_SAMPLES = ("A photo of 2 cats, one red", "snow; 99% of it's blue (really) \u2014 caf\u00e9")


def add_tokenizers(
    tokenizers: Mapping[str, PreTrainedTokenizerBase], bundle: Path
) -> tuple[str, ...]:
    """Writes each tokenizer as a model into its folder; see `qdx.backends.contract.Backend`.

    Raises:
        StorageError: The disk refused.
    """
    if not tokenizers:
        return ()
    if find_spec(PACKAGE) is None:
        missing = (
            f"no {MODEL_FILE}, which OpenVINO GenAI wants: openvino-tokenizers is not installed"
        )
        return (f'{missing}; run `pip install "qdx[openvino]"` and export again',)
    notes = []
    for name, tokenizer in tokenizers.items():
        try:
            model = _converted(tokenizer)
        except Exception as error:  # noqa: BLE001  # the converter fails in many ways
            reason = first_line(error, otherwise=type(error).__name__)
            notes.append(f"{name}: no {MODEL_FILE}, which OpenVINO GenAI wants: {reason}")
        else:
            _save(model, bundle / name / MODEL_FILE)
    return tuple(notes)


def _converted(tokenizer: PreTrainedTokenizerBase) -> Any:
    """The tokenizer as a model of the same bytes in every process.

    Raises:
        ValueError: It tokenizes otherwise than the original.
    """
    openvino()  # first, so that the package below finds it imported without telemetry
    model = importlib.import_module(PACKAGE).convert_tokenizer(tokenizer)
    # The generated names count up for the life of a process.
    for number, node in enumerate(model.get_ordered_ops()):
        node.set_friendly_name(f"{node.get_type_name()}_{number}")
    model.input(0).get_tensor().set_names({"text"})
    compiled = core().compile_model(model, "CPU")
    for sample in _SAMPLES:
        expected = tokenizer(sample, verbose=False)["input_ids"]
        got = compiled([sample])["input_ids"][0].tolist()
        if got != expected:
            raise ValueError(f"converted, it makes other tokens of {sample!r}")
    return model


def _save(model: Any, path: Path) -> None:
    try:
        openvino().save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise StorageError(f"`{path.name}`: OpenVINO could not write it: {error}") from error
