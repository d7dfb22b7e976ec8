"""Families around a UNet: Stable Diffusion 1, XL and DDPM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.tiny.parts import autoencoder_kl, clip_projected, clip_text
from tests.support.tiny.vocabularies import clip_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusers import UNet2DConditionModel

LEADING = {"timestep_spacing": "leading", "steps_offset": 1}
SD1_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def _unet(**options: Any) -> UNet2DConditionModel:
    from diffusers import UNet2DConditionModel

    defaults: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "cross_attention_dim": 32,
    }
    return UNet2DConditionModel(**{**defaults, **options})


def sd() -> Mapping[str, Any]:
    """Components of Stable Diffusion 1."""
    from diffusers import PNDMScheduler

    tokenizer = clip_tokenizer()
    return {
        "vae": autoencoder_kl(),
        "text_encoder": clip_text(tokenizer),
        "tokenizer": tokenizer,
        "unet": _unet(),
        "scheduler": PNDMScheduler(skip_prk_steps=True, steps_offset=1, **SD1_BETAS),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def sd_img2img() -> Mapping[str, Any]:
    """Components of Stable Diffusion 1; image to image takes the same ones, here with DDIM."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        clip_sample=False, set_alpha_to_one=False, steps_offset=1, **SD1_BETAS
    )
    return {**sd(), "scheduler": scheduler}


def sd_inpaint() -> Mapping[str, Any]:
    """Components of Stable Diffusion inpainting: mask and masked image join the latents."""
    return {**sd_img2img(), "unet": _unet(in_channels=9)}


def sd_controlnet() -> Mapping[str, Any]:
    """Components of Stable Diffusion 1 with a ControlNet, under DPM-Solver++."""
    from diffusers import ControlNetModel, DPMSolverMultistepScheduler

    controlnet = ControlNetModel(
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=32,
        conditioning_embedding_out_channels=(8, 8, 16, 16),
    )
    return {
        **sd(),
        "controlnet": controlnet,
        "scheduler": DPMSolverMultistepScheduler(**LEADING, **SD1_BETAS),
    }


def lcm() -> Mapping[str, Any]:
    """Components of a latent consistency model: the UNet takes the guidance as an embedding."""
    from diffusers import LCMScheduler

    return {**sd(), "unet": _unet(time_cond_proj_dim=16), "scheduler": LCMScheduler(**SD1_BETAS)}


def sdxl() -> Mapping[str, Any]:
    """Components of Stable Diffusion XL (base)."""
    from diffusers import EulerDiscreteScheduler

    tokenizer, tokenizer_2 = clip_tokenizer(), clip_tokenizer(pad_token="!")
    unet = _unet(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        cross_attention_dim=32 + 24,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24,
    )
    return {
        "vae": autoencoder_kl(scaling_factor=0.13025),
        "text_encoder": clip_text(tokenizer),
        "text_encoder_2": clip_projected(tokenizer_2, hidden=24),
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer_2,
        "unet": unet,
        "scheduler": EulerDiscreteScheduler(**LEADING, **SD1_BETAS),
        "force_zeros_for_empty_prompt": True,
    }


def sdxl_img2img() -> Mapping[str, Any]:
    """Components of Stable Diffusion XL; image to image takes the same ones."""
    return sdxl()


def ddpm() -> Mapping[str, Any]:
    """Components of unconditional DDPM, in pixel space."""
    from diffusers import DDPMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=8,
        norm_num_groups=4,
    )
    return {"unet": unet, "scheduler": DDPMScheduler()}
