"""Families around an image transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.tiny.parts import (
    autoencoder_kl,
    autoencoder_kl16,
    clip_projected,
    clip_text,
    gemma2_text,
    t5_text,
    umt5_text,
)
from tests.support.tiny.vocabularies import clip_tokenizer, gemma_tokenizer, t5_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping


def sd3() -> Mapping[str, Any]:
    """Components of Stable Diffusion 3.5: three text encoders, one dual-attention layer."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

    tokenizer, tokenizer_2, tokenizer_3 = (
        clip_tokenizer(),
        clip_tokenizer(pad_token="!"),
        t5_tokenizer(),
    )
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=8,
        out_channels=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=32 + 24,
        pos_embed_max_size=16,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return {
        "transformer": transformer,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "vae": autoencoder_kl16(),
        "text_encoder": clip_projected(tokenizer, activation="quick_gelu"),
        "tokenizer": tokenizer,
        "text_encoder_2": clip_projected(tokenizer_2, hidden=24),
        "tokenizer_2": tokenizer_2,
        "text_encoder_3": t5_text(tokenizer_3, hidden=64),
        "tokenizer_3": tokenizer_3,
    }


def flux() -> Mapping[str, Any]:
    """Components of FLUX.1-dev, with embedded guidance."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

    tokenizer, tokenizer_2 = clip_tokenizer(), t5_tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=8 * 4,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        "vae": autoencoder_kl16(),
        "text_encoder": clip_text(tokenizer),
        "tokenizer": tokenizer,
        "text_encoder_2": t5_text(tokenizer_2),
        "tokenizer_2": tokenizer_2,
        "transformer": transformer,
    }


def dit() -> Mapping[str, Any]:
    """Components of class-conditional DiT; the pipeline fixes the empty class to number 1000."""
    from diffusers import DDIMScheduler, DiTTransformer2DModel

    transformer = DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        num_embeds_ada_norm=1000,
    )
    return {
        "transformer": transformer,
        "vae": autoencoder_kl(),
        "scheduler": DDIMScheduler(),
        "id2label": {index: f"class {index}" for index in range(10)},
    }


def pixart() -> Mapping[str, Any]:
    """Components of PixArt Sigma."""
    from diffusers import DPMSolverMultistepScheduler, PixArtTransformer2DModel

    tokenizer = t5_tokenizer()
    transformer = PixArtTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=32,
        sample_size=8,
        caption_channels=32,
    )
    return {
        "tokenizer": tokenizer,
        "text_encoder": t5_text(tokenizer),
        "vae": autoencoder_kl(scaling_factor=0.13025),
        "transformer": transformer,
        "scheduler": DPMSolverMultistepScheduler(timestep_spacing="leading"),
    }


def sana() -> Mapping[str, Any]:
    """Components of Sana: Gemma 2, linear attention and a deep-compression autoencoder."""
    from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaTransformer2DModel

    tokenizer = gemma_tokenizer()
    scales: tuple[tuple[int, ...], ...] = ((), (), (5,), (5,))
    blocks = ("ResBlock", "ResBlock", "EfficientViTBlock", "EfficientViTBlock")
    vae = AutoencoderDC(
        latent_channels=8,
        attention_head_dim=8,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(8, 8, 16, 16),
        decoder_block_out_channels=(8, 8, 16, 16),
        encoder_layers_per_block=(1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
        scaling_factor=0.41407,
    )
    transformer = SanaTransformer2DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=4,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=4,
        cross_attention_head_dim=8,
        cross_attention_dim=32,
        caption_channels=32,
        sample_size=8,
    )
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return {
        "tokenizer": tokenizer,
        "text_encoder": gemma2_text(tokenizer),
        "vae": vae,
        "transformer": transformer,
        "scheduler": scheduler,
    }


def auraflow() -> Mapping[str, Any]:
    """Components of AuraFlow."""
    from diffusers import AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler

    tokenizer = t5_tokenizer()
    transformer = AuraFlowTransformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pos_embed_max_size=64,
    )
    return {
        "tokenizer": tokenizer,
        "text_encoder": umt5_text(tokenizer),
        "vae": autoencoder_kl(scaling_factor=0.13025),
        "transformer": transformer,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=1.73),
    }
