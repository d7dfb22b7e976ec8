"""Trains ``samples/shapes-mmdit``, a StableDiffusion3Pipeline.

``python -m samples.train.shapes_mmdit`` needs the folders that ``samples.train.vae`` and
``samples.train.text`` leave. Both text encoders are frozen: the pipeline's own ``encode_prompt``
makes the embeddings of all captions once. The transformer learns the velocity of the straight path
from noise to latents at logit-normal times; one caption in ten is left empty for guidance.

Without a third text encoder the pipeline appends ``max_sequence_length`` rows of zeros to the token
states. These rows stay equal to each other in every block, for nothing tells them apart, so the
training keeps one of them and adds the logarithm of their number to its attention score. The number
varies from step to step, and the sample draws alike with any ``max_sequence_length``.
"""

import argparse
import math
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from diffusers.models.attention_processor import Attention
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from samples.measure import mean_accuracy
from samples.progress import say
from samples.scenes import training_captions
from samples.storing import save_text_encoder, strip_paths, to_half
from samples.train import text, vae
from samples.train.latents import scene_latents
from samples.train.training import Plan, Trainer
from samples.train.words import copy_words

FOLDER = Path("samples/shapes-mmdit")
BATCH = 32
EMPTY_SHARE = 0.1
MOST_ZEROS = 256


class CountedZeros:
    """Joint attention in which the last key stands for any number of equal keys."""

    def __init__(self) -> None:
        """Starts with one key that stands for itself."""
        self.count = 1

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        **_: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attends from picture and text to both.

        Args:
            attn: The module that holds the projections.
            hidden_states: ``[batch, picture tokens, width]``.
            encoder_hidden_states: ``[batch, text tokens, width]``.

        Returns:
            The new states of both, shapes unchanged.
        """

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        picture, words = hidden_states, encoder_hidden_states
        query = torch.cat(
            [
                attn.norm_q(heads(attn.to_q(picture))),
                attn.norm_added_q(heads(attn.add_q_proj(words))),
            ],
            2,
        )
        key = torch.cat(
            [
                attn.norm_k(heads(attn.to_k(picture))),
                attn.norm_added_k(heads(attn.add_k_proj(words))),
            ],
            2,
        )
        value = torch.cat([heads(attn.to_v(picture)), heads(attn.add_v_proj(words))], 2)
        bias = torch.zeros(1, 1, 1, key.shape[2])
        bias[..., -1] = math.log(self.count)
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        mixed = mixed.transpose(1, 2).flatten(2)
        picture, words = mixed.split([picture.shape[1], words.shape[1]], dim=1)
        if not attn.context_pre_only:
            words = attn.to_add_out(words)
        return attn.to_out[0](picture), words


def new_transformer() -> SD3Transformer2DModel:
    """Builds the untrained denoiser."""
    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=6,
        attention_head_dim=32,
        num_attention_heads=5,
        caption_projection_dim=160,
        joint_attention_dim=224,
        pooled_projection_dim=2 * text.PROJECTED,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )


def new_pipeline(transformer: SD3Transformer2DModel) -> StableDiffusion3Pipeline:
    """Puts a denoiser together with the parts trained before.

    Args:
        transformer: The denoiser; shared, not copied.
    """
    first, second = (
        CLIPTextModelWithProjection.from_pretrained(text.FOLDER / kind, dtype=torch.float32)
        for kind in ("first", "second")
    )
    words = text.FOLDER / "tokenizer"
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0),
        vae=AutoencoderKL.from_pretrained(vae.FOLDER, torch_dtype=torch.float32),
        text_encoder=first,
        tokenizer=CLIPTokenizer.from_pretrained(words),
        text_encoder_2=second,
        tokenizer_2=CLIPTokenizer.from_pretrained(words),
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def store(transformer: SD3Transformer2DModel, out: Path) -> None:
    """Writes the pipeline's folder in fp16.

    Args:
        transformer: The trained denoiser; not changed.
        out: The folder.
    """
    copy = SD3Transformer2DModel.from_config(transformer.config)
    copy.load_state_dict(transformer.state_dict())
    pipeline = new_pipeline(to_half(copy))
    pipeline.vae.half(), pipeline.text_encoder.half(), pipeline.text_encoder_2.half()
    pipeline.save_pretrained(out)
    save_text_encoder(pipeline.text_encoder, out / "text_encoder")
    save_text_encoder(pipeline.text_encoder_2, out / "text_encoder_2")
    for name in ("tokenizer", "tokenizer_2"):
        copy_words(text.FOLDER / "tokenizer", out / name)
    strip_paths(out)


@torch.no_grad()
def embed(
    pipeline: StableDiffusion3Pipeline, captions: list[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeds captions as the pipeline does, with one row of zeros.

    Args:
        pipeline: The pipeline.
        captions: Texts; the empty one is allowed.

    Returns:
        Token states ``[len(captions), tokens + 1, 224]`` and pooled vectors ``[len(captions), 128]``.
    """
    states, _, pooled, _ = pipeline.encode_prompt(
        captions, None, None, do_classifier_free_guidance=False, max_sequence_length=1
    )
    return states, pooled


def main() -> None:
    """Trains and writes the folder."""
    parser = argparse.ArgumentParser(description="train the shapes-mmdit sample")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    transformer = new_transformer()
    stock = transformer.attn_processors
    zeros = CountedZeros()
    pipeline = new_pipeline(transformer)
    captions = [str(caption) for caption in training_captions()]
    states, pooled = embed(pipeline, [*captions, ""])
    latents, rows = scene_latents(pipeline.vae)
    facts = pipeline.vae.config
    latents = (latents - facts.shift_factor) * facts.scaling_factor

    def loss(step: int) -> torch.Tensor:
        chance = torch.Generator().manual_seed(step)
        chosen = torch.randint(len(latents), (BATCH,), generator=chance)
        empty = torch.rand(BATCH, generator=chance) < EMPTY_SHARE
        context = torch.where(empty, len(captions), rows[chosen])
        noise = torch.randn((BATCH, 4, 8, 8), generator=chance)
        share = torch.randn(BATCH, generator=chance).sigmoid()
        spread = float(torch.rand((), generator=chance))
        zeros.count = round(MOST_ZEROS ** min(1.0, 2 * spread))
        part = share[:, None, None, None]
        noisy = torch.lerp(latents[chosen], noise, part)
        guess = transformer(noisy, states[context], pooled[context], share * 1000).sample
        return torch.nn.functional.mse_loss(guess, noise - latents[chosen])

    def check(step: int) -> None:
        transformer.set_attn_processor(dict(stock))
        share = mean_accuracy(pipeline, captions[75::17][:32], 12, 4.0, max_sequence_length=64)
        say(f"shapes-mmdit: slot accuracy {share:.3f} on 32 training captions at step {step}")
        store(transformer, options.out)
        transformer.set_attn_processor(zeros)

    transformer.set_attn_processor(zeros)
    plan = Plan(options.steps, rate=1e-3, warmup=200, averaging=0.998, check_every=500)
    store(Trainer("shapes-mmdit-state", transformer, plan, loss, check).run(), options.out)


if __name__ == "__main__":
    main()
