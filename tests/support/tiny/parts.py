"""Components that several families share: text encoders and the image autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from transformers import (
        CLIPTextModel,
        CLIPTextModelWithProjection,
        Gemma2Model,
        T5EncoderModel,
        UMT5EncoderModel,
    )


def clip_text(tokenizer: Any, *, hidden: int = 32, layers: int = 2) -> CLIPTextModel:
    """Make a CLIP text encoder for a tokenizer.

    Args:
        tokenizer: Gives vocabulary size and special ids.
        hidden: Width of the encoder.
        layers: Number of layers.
    """
    from transformers import CLIPTextModel

    return CLIPTextModel(_clip_config(tokenizer, hidden, layers, "quick_gelu"))


def clip_projected(
    tokenizer: Any, *, hidden: int = 32, layers: int = 2, activation: str = "gelu"
) -> CLIPTextModelWithProjection:
    """Make a CLIP text encoder with projection; the projection is as wide as the encoder.

    Args:
        tokenizer: Gives vocabulary size and special ids.
        hidden: Width of the encoder and of the projection.
        layers: Number of layers.
        activation: Activation of the feed-forward layers.
    """
    from transformers import CLIPTextModelWithProjection

    return CLIPTextModelWithProjection(_clip_config(tokenizer, hidden, layers, activation))


def _clip_config(tokenizer: Any, hidden: int, layers: int, activation: str) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        projection_dim=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        hidden_act=activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def t5_text(tokenizer: Any, *, hidden: int = 32, layers: int = 2) -> T5EncoderModel:
    """Make a T5 v1.1 encoder (gated GELU) for a tokenizer.

    Args:
        tokenizer: Gives vocabulary size.
        hidden: Width of the encoder.
        layers: Number of layers.
    """
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(**_t5_options(tokenizer, hidden, layers)))


def umt5_text(tokenizer: Any, *, hidden: int = 32, layers: int = 2) -> UMT5EncoderModel:
    """Make a UMT5 encoder, whose layers each have their own relative positions.

    Args:
        tokenizer: Gives vocabulary size.
        hidden: Width of the encoder.
        layers: Number of layers.
    """
    from transformers import UMT5Config, UMT5EncoderModel

    return UMT5EncoderModel(UMT5Config(**_t5_options(tokenizer, hidden, layers)))


def _t5_options(tokenizer: Any, hidden: int, layers: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "d_model": hidden,
        "d_kv": 8,
        "d_ff": 2 * hidden,
        "num_layers": layers,
        "num_heads": 4,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 16,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,
    }


def gemma2_text(tokenizer: Any) -> Gemma2Model:
    """Make a Gemma 2 decoder with grouped queries, soft caps and a short sliding window.

    Args:
        tokenizer: Gives vocabulary size and special ids.
    """
    from transformers import Gemma2Config, Gemma2Model

    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        max_position_embeddings=64,
        sliding_window=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=False,
    )
    return Gemma2Model(config)


def autoencoder_kl(*, latent_channels: int = 4, **options: Any) -> AutoencoderKL:
    """Make an image autoencoder that shrinks height and width by 8, as the published ones do.

    Args:
        latent_channels: Channels of the latents.
        **options: Further arguments of `AutoencoderKL`.
    """
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=64,
        **options,
    )


def autoencoder_kl16() -> AutoencoderKL:
    """Make the autoencoder of the flow-matching families: shifted latents, no quant convs."""
    return autoencoder_kl(
        latent_channels=8,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=True,
    )
