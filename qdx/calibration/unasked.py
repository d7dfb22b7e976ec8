"""What a calibration does unasked: whose prompts it takes, and how much of them is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qdx.exporter.capture.cut_prompts import cut_words, prompt_words
from qdx.exporter.capture.media import call_parameters
from qdx.exporter.cautions import caution

if TYPE_CHECKING:
    from qdx.exporter.capture.cut_prompts import Tokenizing
    from qdx.exporter.plan.schema.settings import Calibration

__all__ = ["tell_cut_prompts", "tell_prompts"]


def tell_prompts(
    call: Mapping[str, Any], settings: Calibration, prompts: Sequence[str] | None
) -> None:
    """Warns where a calibration takes the call's own prompt for want of others, or not all that are given.

    Args:
        call: The pipeline call.
        settings: Of the calibration.
        prompts: Prompts to calibrate with; None keeps the call's.
    """
    own = call.get("prompt")
    if own is None:
        return
    texts = [own] if isinstance(own, str) else list(own)
    needed = settings.samples * len(texts)
    if prompts is None:
        shown = ", ".join(map(prompt_words, texts[:2])) + ", ..." * (len(texts) > 2)
        caution(
            f"no --calib: calibrates on the call's own prompt alone, {shown}, and activations of other prompts can leave "
            f"these ranges; give --calib FILE (in Python `prompts`) with {needed} prompt{'s'[: needed > 1]} like those to come"
        )
    elif len(prompts) > needed:
        caution(
            f"{needed} of the {len(prompts)} prompts are used, the first ones: the plan calibrates with "
            f"{settings.samples} sample{'s'[: settings.samples > 1]}; `calibration.samples` in the plan takes more"
        )


def tell_cut_prompts(
    seen: Tokenizing, pipeline: Any, calls: Sequence[Mapping[str, Any]], prompts: object
) -> None:
    """Warns where a text encoder does not read all of a prompt.

    Args:
        seen: The tokenizers' calls in a rehearsal of the first call.
        pipeline: What was called.
        calls: The call of every sample.
        prompts: What they calibrate with; None where they all keep the first one's.
    """
    if prompts is None:
        cuts = seen.cuts()
    else:
        texts = [_texts(call) for call in calls]
        cuts = seen.cuts_of(texts[0], list(dict.fromkeys(one for text in texts for one in text)))
    if cuts:
        caution(cut_words(cuts, longer="max_sequence_length" in call_parameters(pipeline)))


def _texts(call: Mapping[str, Any]) -> list[str]:
    own = call["prompt"]
    return [own] if isinstance(own, str) else list(own)
