"""Image families whose text encoders are neither CLIP nor T5 alone: HunyuanDiT and Qwen-Image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.tiny.parts import autoencoder_kl, t5_text
from tests.support.tiny.vocabularies import bert_tokenizer, qwen_tokenizer, t5_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import Qwen2_5_VLForConditionalGeneration


def hunyuandit() -> Mapping[str, Any]:
    """Components of HunyuanDiT; the pipeline fixes the two text lengths to 77 and 256."""
    from diffusers import DDPMScheduler, HunyuanDiT2DModel
    from transformers import BertConfig, BertModel

    tokenizer, tokenizer_2 = bert_tokenizer(), t5_tokenizer(max_length=256)
    text_encoder = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=77,
        )
    )
    transformer = HunyuanDiT2DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        patch_size=2,
        sample_size=8,
        hidden_size=32,
        num_layers=4,
        mlp_ratio=2.0,
        cross_attention_dim=32,
        cross_attention_dim_t5=24,
        pooled_projection_dim=16,
        text_len=77,
        text_len_t5=256,
        use_style_cond_and_image_meta_size=True,
    )
    return {
        "vae": autoencoder_kl(scaling_factor=0.13025),
        "text_encoder": text_encoder,
        "tokenizer": tokenizer,
        "transformer": transformer,
        "scheduler": DDPMScheduler(
            beta_start=0.00085,
            beta_end=0.018,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            steps_offset=1,
            clip_sample=False,
        ),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
        "text_encoder_2": t5_text(tokenizer_2, hidden=24),
        "tokenizer_2": tokenizer_2,
    }


def qwenimage() -> Mapping[str, Any]:
    """Components of Qwen-Image: a vision-language text encoder and a video autoencoder."""
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImageTransformer2DModel,
    )

    tokenizer = qwen_tokenizer()
    transformer = QwenImageTransformer2DModel(
        in_channels=16 * 4,
        out_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),
    )
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, time_shift_type="exponential", shift_terminal=0.02
        ),
        "vae": AutoencoderKLQwenImage(
            base_dim=8, z_dim=16, dim_mult=[1, 1, 2, 2], num_res_blocks=1
        ),
        "text_encoder": _qwen_text(tokenizer),
        "tokenizer": tokenizer,
        "transformer": transformer,
    }


def _qwen_text(tokenizer: Any) -> Qwen2_5_VLForConditionalGeneration:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [2, 1, 1],
        },
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": end,
        "use_cache": False,
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 32,
        "fullatt_block_indexes": [0],
    }
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    return Qwen2_5_VLForConditionalGeneration(config)
