"""Encoders of transformers, each `WIDTH` wide, and image processors, by the name of their class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tests.support.every.sizes import WIDTH

_DECODER: Final[Mapping[str, Any]] = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    "use_cache": False,
}
_SLIDING: Final[Mapping[str, Any]] = {**_DECODER, "query_pre_attn_scalar": 8, "sliding_window": 16}
_ROTARY: Final = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]}
_STACK: Final[Mapping[str, Any]] = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_VISION: Final[Mapping[str, Any]] = {**_STACK, "image_size": 32, "patch_size": 8}
_CLIP: Final[Mapping[str, Any]] = {
    **_STACK,
    "projection_dim": WIDTH,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
}
_T5: Final[Mapping[str, Any]] = {
    "d_model": WIDTH,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.0,
}
_ROBERTA: Final[Mapping[str, Any]] = {
    **_STACK,
    "max_position_embeddings": 80,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_HIFIGAN: Final[Mapping[str, Any]] = {
    "model_in_dim": 8,
    "sampling_rate": 1024,
    "upsample_initial_channel": 16,
    "upsample_rates": [2, 2],
    "upsample_kernel_sizes": [4, 4],
    "resblock_kernel_sizes": [3, 7],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5]],
    "normalize_before": False,
}
_DPT: Final[Mapping[str, Any]] = {
    **_STACK,
    "num_hidden_layers": 4,
    "backbone_out_indices": [0, 1, 2, 3],
    "image_size": 64,
    "patch_size": 16,
    "neck_hidden_sizes": [16, 16, 32, 32],
    "fusion_hidden_size": 16,
    "reassemble_factors": [4, 2, 1, 0.5],
}
_GPT2: Final[Mapping[str, Any]] = {
    "vocab_size": 300,
    "n_embd": 16,
    "n_layer": 1,
    "n_head": 2,
    "n_positions": 64,
}

# Class -> class of the configuration, its values, and whether it wants the vocabulary and its special tokens.
_PLAIN: Final[Mapping[str, tuple[str, Mapping[str, Any], bool]]] = {
    "BertModel": ("BertConfig", {**_STACK, "max_position_embeddings": 77}, True),
    "CLIPTextModel": ("CLIPTextConfig", _CLIP, True),
    "CLIPTextModelWithProjection": ("CLIPTextConfig", _CLIP, True),
    "CLIPVisionModel": ("CLIPVisionConfig", {**_VISION, "projection_dim": WIDTH}, False),
    "CLIPVisionModelWithProjection": (
        "CLIPVisionConfig",
        {**_VISION, "projection_dim": WIDTH},
        False,
    ),
    "ClapTextModelWithProjection": (
        "ClapTextConfig",
        {**_STACK, "max_position_embeddings": 80, "projection_dim": WIDTH},
        True,
    ),
    "DPTForDepthEstimation": ("DPTConfig", _DPT, False),
    "GPT2LMHeadModel": ("GPT2Config", _GPT2, False),
    "Gemma2Model": ("Gemma2Config", _SLIDING, True),
    "GemmaModel": ("GemmaConfig", _DECODER, True),
    "GlmModel": ("GlmConfig", _DECODER, True),
    "LlamaForCausalLM": ("LlamaConfig", _DECODER, True),
    "LlamaModel": ("LlamaConfig", _DECODER, True),
    "PaintByExampleImageEncoder": ("CLIPVisionConfig", {**_VISION, "projection_dim": WIDTH}, False),
    "Qwen3ForCausalLM": ("Qwen3Config", _DECODER, True),
    "Qwen3Model": ("Qwen3Config", _DECODER, True),
    "Siglip2VisionModel": (
        "Siglip2VisionConfig",
        {**_STACK, "patch_size": 8, "num_patches": 16},
        False,
    ),
    "SiglipVisionModel": ("SiglipVisionConfig", _VISION, False),
    "SmolLM3ForCausalLM": ("SmolLM3Config", _DECODER, True),
    "SpeechT5HifiGan": ("SpeechT5HifiGanConfig", _HIFIGAN, False),
    "T5EncoderModel": ("T5Config", _T5, True),
    "UMT5EncoderModel": ("UMT5Config", _T5, True),
}


def make_encoder(name: str, made: type | None, tokenizer: Any, options: Mapping[str, Any]) -> Any:
    """An encoder, small.

    Args:
        name: Its class.
        made: The class, where it is none of transformers' own names.
        tokenizer: Gives the vocabulary; None for encoders of pictures.
        options: Values over the small ones.

    Raises:
        LookupError: The class is not known here.
    """
    import transformers

    if name in _PLAIN:
        config, values, knows_words = _PLAIN[name]
        words = _words(tokenizer) if knows_words else {}
        return (made or getattr(transformers, name))(
            getattr(transformers, config)(**{**values, **words, **options})
        )
    if name == "T5GemmaEncoder":
        raise LookupError(
            "transformers reads back a T5GemmaEncoder that it has saved as one of two billion parameters"
        )
    if name not in _COMPOSED:
        raise LookupError(f"there is no small configuration of {name}")
    config = _COMPOSED[name](_words(tokenizer), options)
    return (made or getattr(transformers, name))(config)


def _words(tokenizer: Any) -> dict[str, Any]:
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    ids = {name: getattr(tokenizer, name) for name in names if getattr(tokenizer, name) is not None}
    return {"vocab_size": len(tokenizer), **ids}


Words = dict[str, Any]


def _qwen2_5_vl(words: Words, options: Mapping[str, Any]) -> Any:
    from transformers import Qwen2_5_VLConfig

    text = {**_DECODER, **words, "rope_parameters": _ROTARY, **options}
    del text["head_dim"]
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [0],
    }
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision)


def _qwen2_vl(words: Words, options: Mapping[str, Any]) -> Any:
    from transformers import Qwen2VLConfig

    text = {**_DECODER, **words, "rope_parameters": _ROTARY, **options}
    del text["head_dim"]
    vision = {"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": WIDTH}
    return Qwen2VLConfig(text_config=text, vision_config=vision)


def _qwen3_vl(words: Words, options: Mapping[str, Any]) -> Any:
    from transformers import Qwen3VLConfig

    rotary = {**_ROTARY, "mrope_interleaved": True}
    text = {**_DECODER, **words, "rope_parameters": rotary, **options}
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "deepstack_visual_indexes": [0],
        "num_position_embeddings": 16,
    }
    return Qwen3VLConfig(text_config=text, vision_config=vision)


def _gemma3(words: Words, options: Mapping[str, Any]) -> Any:
    from transformers import Gemma3Config

    kinds = ["sliding_attention", "full_attention"]
    text = {**_SLIDING, **words, "layer_types": kinds, **options}
    vision = {**_VISION, "patch_size": 16}
    return Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=4
    )


def _t5gemma(words: Words, options: Mapping[str, Any]) -> Any:
    from transformers import T5GemmaConfig

    inner = {**_SLIDING, **words, **options}
    return T5GemmaConfig(encoder=inner, decoder=inner, is_encoder_decoder=False)


def _clap(words: Words, options: Mapping[str, Any]) -> Any:
    from transformers import ClapConfig

    text = {**_STACK, **words, "max_position_embeddings": 80, "projection_dim": WIDTH}
    sound = {
        "spec_size": 8,
        "window_size": 4,
        "num_mel_bins": 8,
        "depths": [1, 1],
        "num_attention_heads": [1, 2],
        "num_hidden_layers": 2,
        "hidden_size": 24,
        "patch_size": 2,
        "patch_stride": 2,
        "patch_embed_input_channels": 1,
        "patch_embeds_hidden_size": 12,
        "projection_dim": WIDTH,
    }
    return ClapConfig(text_config=text, audio_config=sound, projection_dim=WIDTH, **options)


def _multilingual_clip(words: Words, options: Mapping[str, Any]) -> Any:
    from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig

    values = {**words, **_ROBERTA, **options}
    return MCLIPConfig(transformerDimSize=WIDTH, imageDimSize=WIDTH, **values)


def _roberta_series(words: Words, options: Mapping[str, Any]) -> Any:
    from diffusers.pipelines.deprecated.alt_diffusion import modeling_roberta_series as series

    return series.RobertaSeriesConfig(project_dim=WIDTH, **{**words, **_ROBERTA, **options})


def _mistral3(words: Words, options: Mapping[str, Any]) -> Any:
    from transformers import Mistral3Config, MistralConfig, PixtralVisionConfig

    vision = PixtralVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    text = MistralConfig(**{**_DECODER, **words, **options})
    return Mistral3Config(text_config=text, vision_config=vision)


_COMPOSED: Final = {
    "ClapModel": _clap,
    "Gemma3ForConditionalGeneration": _gemma3,
    "Mistral3Model": _mistral3,
    "MultilingualCLIP": _multilingual_clip,
    "Qwen2VLForConditionalGeneration": _qwen2_vl,
    "Qwen2_5_VLForConditionalGeneration": _qwen2_5_vl,
    "Qwen2_5_VLTextModel": lambda words, options: _qwen2_5_vl(words, options).text_config,
    "Qwen3VLForConditionalGeneration": _qwen3_vl,
    "Qwen3VLModel": _qwen3_vl,
    "RobertaSeriesModelWithTransformation": _roberta_series,
    "T5GemmaEncoderModel": _t5gemma,
}
ENCODERS: Final = frozenset({*_PLAIN, *_COMPOSED})
"""Every class that `make_encoder` knows."""

_SQUARE: Final = {"height": 32, "width": 32}
_PROCESSORS: Final[Mapping[str, Mapping[str, Any]]] = {
    "CLIPImageProcessor": {"size": {"shortest_edge": 32}, "crop_size": _SQUARE},
    "ClapFeatureExtractor": {
        "sampling_rate": 1024,
        "feature_size": 8,
        "fft_window_size": 64,
        "hop_length": 32,
        "frequency_max": 500,
    },
    "DPTImageProcessor": {"size": {"height": 64, "width": 64}},
    "Siglip2ImageProcessor": {"patch_size": 8, "max_num_patches": 16},
    "SiglipImageProcessor": {"size": _SQUARE},
}


def make_processor(name: str, options: Mapping[str, Any]) -> Any:
    """An image processor or a feature extractor.

    Raises:
        LookupError: The class is not known here.
    """
    import transformers

    plain = name.removesuffix(
        "Pil"
    )  # the class that signatures name where torchvision is not installed
    if plain == "CLIPProcessor":
        from tests.support.every.words import make_tokenizer

        inner = make_processor("CLIPImageProcessor", {})
        return transformers.CLIPProcessor(inner, make_tokenizer("CLIPTokenizer"))
    if plain not in _PROCESSORS:
        raise LookupError(f"there is no small {name}")
    return getattr(transformers, plain)(**{**_PROCESSORS[plain], **options})
