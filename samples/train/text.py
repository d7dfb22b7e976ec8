"""Trains the text encoders of ``shapes`` and ``shapes-mmdit`` before anything is drawn.

A text encoder learns with a small throw-away head: five questions, one per place of a scene, look
at the encoder's token states and have to say which shape of which colour stands there. What the
denoisers later need from a caption is then already in the states, so the encoders stay frozen and
the states of all captions are computed once. Only the training captions are used; the share of
held-out captions read rightly is said at the end.

``python -m samples.train.text`` leaves folders in ``build/train/text``.
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from samples.progress import say
from samples.scenes import (
    COLOURS,
    PLACES,
    SHAPES,
    Caption,
    held_out_captions,
    pair_captions,
    single_captions,
    training_captions,
)
from samples.storing import save_text_encoder, to_half
from samples.train.training import BUILD, Plan, Trainer
from samples.train.words import LENGTH, train_words

FOLDER = BUILD / "text"
BATCH = 128
PROJECTED = 64


def new_encoder(kind: str, words: CLIPTokenizer) -> CLIPTextModel | CLIPTextModelWithProjection:
    """Builds an untrained text encoder.

    Args:
        kind: ``shapes``, ``first`` or ``second``; the last two are those of ``shapes-mmdit``.
        words: The tokenizer.
    """
    width, layers = {"shapes": (128, 2), "first": (96, 3), "second": (128, 3)}[kind]
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=PROJECTED,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    return CLIPTextModel(config) if kind == "shapes" else CLIPTextModelWithProjection(config)


def token_ids(words: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Turns captions into padded token numbers.

    Args:
        words: The tokenizer.
        captions: Texts; the empty one is allowed.

    Returns:
        int64 ``[len(captions), LENGTH]``.
    """
    return words(
        captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    ).input_ids


def encode(
    encoder: CLIPTextModel | CLIPTextModelWithProjection, ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs an encoder as the pipeline that it belongs to does.

    Args:
        encoder: A text encoder.
        ids: int64 ``[batch, LENGTH]``.

    Returns:
        The token states that the denoiser sees, ``[batch, LENGTH, width]``, and the pooled vector
        ``[batch, width or PROJECTED]``.
    """
    if isinstance(encoder, CLIPTextModelWithProjection):
        answer = encoder(ids, output_hidden_states=True)
        return answer.hidden_states[-2], answer.text_embeds
    answer = encoder(ids)
    return answer.last_hidden_state, answer.pooler_output


class Questions(nn.Module):
    """A text encoder with the head that asks what stands at each place."""

    def __init__(self, encoder: CLIPTextModel | CLIPTextModelWithProjection) -> None:
        """Adds the head.

        Args:
            encoder: The encoder; shared, not copied.
        """
        super().__init__()
        self.encoder = encoder
        width = encoder.config.hidden_size
        pooled = PROJECTED if isinstance(encoder, CLIPTextModelWithProjection) else width
        answers = len(SHAPES) + len(COLOURS) + 2
        self.queries = nn.Parameter(torch.randn(len(PLACES), width) * width**-0.5)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.answer = nn.Linear(width, answers)
        self.answer_pooled = nn.Linear(pooled, len(PLACES) * answers)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Answers for every place, once from the states and once from the pooled vector.

        Args:
            ids: int64 ``[batch, LENGTH]``.

        Returns:
            Two float tensors ``[batch, places, answers]``: scores of the shapes and of none, then
            of the colours and of none.
        """
        states, pooled = encode(self.encoder, ids)
        queries = self.queries.expand(len(ids), -1, -1)
        seen, _ = self.attention(queries, states, states, need_weights=False)
        return self.answer(seen), self.answer_pooled(pooled).view(len(ids), len(PLACES), -1)


def targets(captions: tuple[Caption, ...]) -> torch.Tensor:
    """The right answers.

    Args:
        captions: Captions.

    Returns:
        int64 ``[len(captions), places, 2]``: shape and colour numbers; one past the last is none.
    """
    table = torch.tensor([len(SHAPES), len(COLOURS)]).repeat(len(captions), len(PLACES), 1)
    for row, caption in enumerate(captions):
        for figure, place in zip(caption.figures, caption.places, strict=True):
            answer = [SHAPES.index(figure.shape), list(COLOURS).index(figure.colour)]
            table[row, list(PLACES).index(place)] = torch.tensor(answer)
    return table


def split_scores(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Parts the scores into those of the shapes and those of the colours."""
    return scores[..., : len(SHAPES) + 1], scores[..., len(SHAPES) + 1 :]


def train_encoder(kind: str, words: CLIPTokenizer, steps: int) -> nn.Module:
    """Trains one encoder.

    Args:
        kind: See ``new_encoder``.
        words: The tokenizer.
        steps: Optimiser steps.

    Returns:
        The encoder, in evaluation mode.
    """
    torch.manual_seed(3)
    model = Questions(new_encoder(kind, words))
    captions = training_captions()
    ids, right = token_ids(words, [str(c) for c in captions]), targets(captions)
    pairs = torch.tensor([2.0 if len(c.figures) == 2 else 1.0 for c in captions])

    def loss(step: int) -> torch.Tensor:
        chance = torch.Generator().manual_seed(step)
        rows = torch.multinomial(pairs, BATCH, replacement=True, generator=chance)
        parts = [
            nn.functional.cross_entropy(scores.flatten(0, 1), right[rows, :, slot].flatten())
            for answers in model(ids[rows])
            for slot, scores in enumerate(split_scores(answers))
        ]
        return torch.stack(parts).sum()

    Trainer(f"text-{kind}-state", model, Plan(steps, rate=1e-3, decay=0.05), loss).run()
    for name, part in (("training", captions), ("held-out", held_out_captions())):
        say(f"text-{kind}: {right_share(model, words, part)} of {name} captions read rightly")
    return model.encoder


@torch.no_grad()
def right_share(
    model: Questions, words: CLIPTokenizer, captions: tuple[Caption, ...]
) -> tuple[float, float]:
    """The share of captions with every answer right, from the states and from the pooled vector."""
    right = targets(captions)
    shares = []
    for answers in model(token_ids(words, [str(c) for c in captions])):
        said = torch.stack([scores.argmax(-1) for scores in split_scores(answers)], -1)
        shares.append(round(float((said == right).all(-1).all(-1).float().mean()), 4))
    return shares[0], shares[1]


def main() -> None:
    """Trains the tokenizer and the three encoders and writes their folders."""
    parser = argparse.ArgumentParser(description="train the text encoders of the shapes samples")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    words = train_words((*single_captions(), *pair_captions()), options.out / "tokenizer")
    for kind in ("shapes", "first", "second"):
        encoder = to_half(train_encoder(kind, words, options.steps))
        save_text_encoder(encoder, options.out / kind)


if __name__ == "__main__":
    main()
