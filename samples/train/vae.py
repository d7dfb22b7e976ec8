"""Trains the autoencoder that ``shapes`` and ``shapes-mmdit`` share.

``python -m samples.train.vae`` learns 64x64x3 pictures as 8x8x4 latents from rendered scenes of the
training captions and leaves fp16 weights in ``build/train/vae``.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from samples.progress import say
from samples.scenes import Caption, render, render_many, training_captions
from samples.storing import strip_paths, to_half
from samples.train.training import BUILD, Plan, Trainer

FOLDER = BUILD / "vae"
BATCH = 32
KL_WEIGHT = 2e-4
LATENT_MEAN = 0.5
LATENT_DEVIATION = 4.0
POLISHING_NOISE = 0.04
FIRST_POLISHING = 1_000_000


def new_vae() -> AutoencoderKL:
    """Builds the untrained autoencoder."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=8,
        sample_size=64,
    )


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """Turns pictures into the autoencoder's input.

    Args:
        pictures: uint8 ``[batch, height, width, 3]``.

    Returns:
        float32 ``[batch, 3, height, width]``, -1 to 1.
    """
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def batch_of(step: int, captions: tuple[Caption, ...]) -> np.ndarray:
    """Renders the pictures of one step.

    Args:
        step: Step number; seeds the batch.
        captions: What may be drawn.

    Returns:
        uint8 ``[BATCH, 64, 64, 3]``.
    """
    rng = np.random.default_rng((1, step))
    chosen = rng.integers(len(captions), size=BATCH)
    return np.stack([render(captions[i], rng) for i in chosen])


@torch.no_grad()
def set_scale(vae: AutoencoderKL, captions: tuple[Caption, ...]) -> None:
    """Gives every latent channel the same mean and deviation and writes them down.

    The change is folded into the two 1x1 convolutions around the latents; pictures stay the same.

    Args:
        vae: The trained autoencoder; changed in place.
        captions: What is drawn to measure.
    """
    pictures = render_many([captions[i % len(captions)] for i in range(1024)], seed=2)
    means = torch.cat([vae.encode(to_tensor(p)).latent_dist.mean for p in np.split(pictures, 32)])
    mean, deviation = means.mean((0, 2, 3)), means.std((0, 2, 3))
    say(f"latents before: mean {mean.tolist()}, deviation {deviation.tolist()}")
    into, back = vae.quant_conv, vae.post_quant_conv
    gain = LATENT_DEVIATION / deviation
    channels = len(mean)
    into.weight[:channels] *= gain[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - mean) * gain + LATENT_MEAN
    into.bias[channels:] += 2 * gain.log()
    weight = back.weight / gain[None, :, None, None]
    back.bias += (back.weight[:, :, 0, 0] @ mean) - weight[:, :, 0, 0].sum(1) * LATENT_MEAN
    back.weight.copy_(weight)
    vae.register_to_config(scaling_factor=1 / LATENT_DEVIATION, shift_factor=LATENT_MEAN)


def polish(vae: AutoencoderKL, captions: tuple[Caption, ...], steps: int) -> None:
    """Goes on training the decoder alone, on latents with as little noise as denoisers leave.

    The latents stay as they are, so that a denoiser trained on them fits before and after.

    Args:
        vae: The trained and scaled autoencoder; changed in place.
        captions: What may be drawn.
        steps: Optimiser steps.
    """
    part = torch.nn.ModuleDict({"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv})
    vae.requires_grad_(False)
    part.requires_grad_(True)

    def loss(step: int) -> torch.Tensor:
        pixels = to_tensor(batch_of(FIRST_POLISHING + step, captions))
        with torch.autocast("cpu", torch.bfloat16):
            clean = vae.encode(pixels).latent_dist.mean
            noisy = clean + POLISHING_NOISE * LATENT_DEVIATION * torch.randn_like(clean)
            drawn = vae.decode(noisy).sample
        return (drawn.float() - pixels).abs().mean()

    Trainer("vae-decoder-state", part, Plan(steps, rate=1e-3, averaging=0.99), loss).run()


def main() -> None:
    """Trains, sets the scale, polishes the decoder and writes the folder."""
    parser = argparse.ArgumentParser(description="train the autoencoder of the shapes samples")
    parser.add_argument("--steps", type=int, default=1100)
    parser.add_argument("--polishing", type=int, default=400, help="steps of the decoder alone")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    vae, captions = new_vae(), training_captions()

    def loss(step: int) -> torch.Tensor:
        pixels = to_tensor(batch_of(step, captions))
        with torch.autocast("cpu", torch.bfloat16):
            moments = vae.encode(pixels).latent_dist
            drawn = vae.decode(moments.sample()).sample
        return (drawn.float() - pixels).abs().mean() + KL_WEIGHT * moments.kl().mean() / 256

    Trainer("vae-state", vae, Plan(options.steps, rate=2e-3), loss).run()
    set_scale(vae, captions)
    polish(vae, captions, options.polishing)
    to_half(vae).save_pretrained(options.out)
    strip_paths(options.out)


if __name__ == "__main__":
    main()
