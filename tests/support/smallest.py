"""The smallest pipelines that export: one UNet of two layers and a scheduler, and two that take prompts."""

from __future__ import annotations

from pathlib import Path


def build_smallest(folder: Path) -> Path:
    """Saves a pipeline folder whose export takes about a second."""
    import torch
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=8,
            block_out_channels=(8,),
            layers_per_block=1,
            norm_num_groups=4,
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
            add_attention=False,
        )
    DDPMPipeline(unet=unet, scheduler=DDPMScheduler(num_train_timesteps=50)).save_pretrained(folder)
    return folder


def build_smallest_text_to_image(folder: Path) -> Path:
    """Saves a pipeline folder that takes prompts, of one block each; four steps and 16x16 pixels by default."""
    import torch
    from diffusers import (
        AutoencoderKL,
        LatentConsistencyModelPipeline,
        LCMScheduler,
        UNet2DConditionModel,
    )

    from tests.support.tiny.parts import clip_text
    from tests.support.tiny.vocabularies import clip_tokenizer

    tokenizer = clip_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8,),
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
            mid_block_type=None,
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=4,
            cross_attention_dim=16,
            time_cond_proj_dim=8,
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
            sample_size=16,
            mid_block_add_attention=False,
        )
        text_encoder = clip_text(tokenizer, hidden=16, layers=1)
    LatentConsistencyModelPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=LCMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def build_smallest_stable_diffusion(folder: Path, *, seed: int = 0) -> Path:
    """Saves a pipeline folder with guidance and a negative prompt; attention is in the middle of its UNet alone."""
    import torch
    from diffusers import (
        AutoencoderKL,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )

    from tests.support.tiny.parts import clip_text
    from tests.support.tiny.vocabularies import clip_tokenizer, save_for_older_readers
    from tests.support.tiny.weights import randomise

    tokenizer = clip_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        components = {
            "vae": AutoencoderKL(
                block_out_channels=(8, 8),
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                norm_num_groups=4,
                sample_size=16,
            ),
            "text_encoder": clip_text(tokenizer, hidden=32, layers=1),
            "tokenizer": tokenizer,
            "unet": UNet2DConditionModel(
                sample_size=8,
                block_out_channels=(16,),
                down_block_types=("DownBlock2D",),
                up_block_types=("UpBlock2D",),
                layers_per_block=1,
                norm_num_groups=4,
                attention_head_dim=4,
                cross_attention_dim=32,
            ),
            "scheduler": PNDMScheduler(
                skip_prk_steps=True,
                steps_offset=1,
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
            ),
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }
    randomise(components, seed)
    StableDiffusionPipeline(**components).save_pretrained(folder)
    save_for_older_readers(tokenizer, folder / "tokenizer")
    return folder
