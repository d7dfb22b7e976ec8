"""Trains ``samples/digits``: handwritten digits drawn in pixel space, without a caption.

``python -m samples.train.digits`` takes the 1,797 digits of scikit-learn, enlarged from 8x8 to
16x16, and trains a small ``UNet2DModel`` to predict noise.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from sklearn.datasets import load_digits

from samples.storing import strip_paths, to_half
from samples.train.training import Plan, Trainer

FOLDER = Path("samples/digits")
BATCH = 64


def digit_pictures() -> tuple[np.ndarray, np.ndarray]:
    """Loads the digits.

    Returns:
        Pictures, float32 ``[1797, 16, 16]``, 0 to 1, and their classes, int64 ``[1797]``, 0 to 9.
    """
    data = load_digits()
    small = torch.from_numpy(data.images.astype(np.float32) / 16)[:, None]
    large = torch.nn.functional.interpolate(small, size=16, mode="bicubic", align_corners=False)
    return large[:, 0].clamp(0, 1).numpy(), data.target.astype(np.int64)


def new_unet() -> UNet2DModel:
    """Builds the untrained denoiser."""
    return UNet2DModel(
        sample_size=16,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=16,
    )


def main() -> None:
    """Trains and writes the folder."""
    parser = argparse.ArgumentParser(description="train the digits sample")
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    unet = new_unet()
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=True)
    pictures = torch.from_numpy(digit_pictures()[0])[:, None] * 2 - 1

    def loss(step: int) -> torch.Tensor:
        chance = torch.Generator().manual_seed(step)
        clean = pictures[torch.randint(len(pictures), (BATCH,), generator=chance)]
        noise = torch.randn(clean.shape, generator=chance)
        times = torch.randint(1000, (BATCH,), generator=chance)
        noisy = scheduler.add_noise(clean, noise, times)
        with torch.autocast("cpu", torch.bfloat16):
            guess = unet(noisy, times).sample
        return torch.nn.functional.mse_loss(guess.float(), noise)

    Trainer("digits-state", unet, Plan(options.steps, rate=1e-3), loss).run()
    DDPMPipeline(to_half(unet), scheduler).save_pretrained(options.out)
    strip_paths(options.out)


if __name__ == "__main__":
    main()
