"""The training set of both denoisers: latents of rendered scenes, made once."""

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from samples.progress import Steps, say
from samples.scenes import render_many, training_captions
from samples.train.training import BUILD
from samples.train.vae import to_tensor

FILE = BUILD / "latents.safetensors"
PER_PAIR, PER_SINGLE, BATCH = 11, 15, 64


def scene_latents(vae: AutoencoderKL) -> tuple[torch.Tensor, torch.Tensor]:
    """Encodes scenes of all training captions, or reads them back if that was done before.

    Args:
        vae: The trained autoencoder, in fp32.

    Returns:
        Latents as the autoencoder gives them (neither shifted nor scaled), float32
        ``[scenes, 4, 8, 8]``, and the number of each one's caption among the training captions,
        int64 ``[scenes]``.
    """
    if FILE.is_file():
        stored = load_file(FILE)
        return stored["latents"], stored["captions"]
    captions = training_captions()
    listed = [
        row
        for row, caption in enumerate(captions)
        for _ in range(PER_PAIR if len(caption.figures) == 2 else PER_SINGLE)
    ]
    rows = np.random.default_rng(5).permutation(np.array(listed, dtype=np.int64))
    pictures = render_many([captions[row] for row in rows], seed=6)
    parts = []
    for number in Steps("latents", -(-len(rows) // BATCH)):
        part = pictures[number * BATCH : (number + 1) * BATCH]
        with torch.no_grad():
            parts.append(vae.encode(to_tensor(part)).latent_dist.mean)
    latents, numbers = torch.cat(parts).contiguous(), torch.from_numpy(rows)
    say(f"latents: {len(latents)}, mean {latents.mean():.3f}, deviation {latents.std():.3f}")
    save_file({"latents": latents, "captions": numbers}, FILE)
    return latents, numbers
