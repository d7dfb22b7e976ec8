"""Trains ``samples/shapes``, a StableDiffusionPipeline.

``python -m samples.train.shapes`` needs the folders that ``samples.train.vae`` and
``samples.train.text`` leave. The text encoder is frozen, so the states of all captions are computed
once. The denoiser learns velocities (v-prediction); one caption in ten is left empty for guidance.
"""

import argparse
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTokenizer

from samples.measure import mean_accuracy
from samples.progress import say
from samples.scenes import training_captions
from samples.storing import save_text_encoder, strip_paths, to_half
from samples.train import text, vae
from samples.train.latents import scene_latents
from samples.train.training import Plan, Trainer
from samples.train.words import copy_words

FOLDER = Path("samples/shapes")
BATCH = 32
EMPTY_SHARE = 0.1


def new_unet() -> UNet2DConditionModel:
    """Builds the untrained denoiser."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=(2, 4),
        norm_num_groups=16,
    )


def new_scheduler() -> DDIMScheduler:
    """Builds the scheduler, which the training shares with the pipeline."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def new_pipeline(unet: UNet2DConditionModel) -> StableDiffusionPipeline:
    """Puts a denoiser together with the parts trained before.

    Args:
        unet: The denoiser; shared, not copied.
    """
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(vae.FOLDER, torch_dtype=torch.float32),
        text_encoder=CLIPTextModel.from_pretrained(text.FOLDER / "shapes", dtype=torch.float32),
        tokenizer=CLIPTokenizer.from_pretrained(text.FOLDER / "tokenizer"),
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def store(unet: UNet2DConditionModel, out: Path) -> None:
    """Writes the pipeline's folder in fp16.

    Args:
        unet: The trained denoiser; not changed.
        out: The folder.
    """
    copy = UNet2DConditionModel.from_config(unet.config)
    copy.load_state_dict(unet.state_dict())
    pipeline = new_pipeline(to_half(copy))
    pipeline.vae.half(), pipeline.text_encoder.half()
    pipeline.save_pretrained(out)
    save_text_encoder(pipeline.text_encoder, out / "text_encoder")
    copy_words(text.FOLDER / "tokenizer", out / "tokenizer")
    strip_paths(out)


def main() -> None:
    """Trains and writes the folder."""
    parser = argparse.ArgumentParser(description="train the shapes sample")
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    unet = new_unet()
    pipeline = new_pipeline(unet)
    captions = [str(caption) for caption in training_captions()]
    with torch.no_grad():
        ids = text.token_ids(pipeline.tokenizer, [*captions, ""])
        states, _ = text.encode(pipeline.text_encoder, ids)
    latents, rows = scene_latents(pipeline.vae)
    latents = latents * pipeline.vae.config.scaling_factor

    def loss(step: int) -> torch.Tensor:
        chance = torch.Generator().manual_seed(step)
        chosen = torch.randint(len(latents), (BATCH,), generator=chance)
        empty = torch.rand(BATCH, generator=chance) < EMPTY_SHARE
        context = states[torch.where(empty, len(captions), rows[chosen])]
        noise = torch.randn((BATCH, 4, 8, 8), generator=chance)
        times = torch.randint(1000, (BATCH,), generator=chance)
        noisy = pipeline.scheduler.add_noise(latents[chosen], noise, times)
        velocity = pipeline.scheduler.get_velocity(latents[chosen], noise, times)
        return torch.nn.functional.mse_loss(unet(noisy, times, context).sample, velocity)

    def check(step: int) -> None:
        share = mean_accuracy(pipeline, captions[75::17][:32], steps=12, guidance=4.0)
        say(f"shapes: slot accuracy {share:.3f} on 32 training captions at step {step}")
        store(unet, options.out)

    plan = Plan(options.steps, rate=1e-3, averaging=0.998, check_every=500)
    store(Trainer("shapes-state", unet, plan, loss, check).run(), options.out)


if __name__ == "__main__":
    main()
