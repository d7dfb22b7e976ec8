"""Norms as models write them out, each with a square that float16 does not hold."""

from __future__ import annotations

import torch


def _in_place(x):
    spread = x.pow(2).mean(-1, keepdim=True)
    spread.add_(1e-6)
    spread.rsqrt_()
    return x * spread


def _of_differences(x):
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / (((x - mean) * (x - mean)).mean(-1, keepdim=True) + 1e-5).sqrt()


def _of_pairs(x):
    spread, mean = torch.var_mean(x, -1, keepdim=True)
    return (x - mean) * torch.rsqrt(spread + 1e-5)


def _less_the_square_of_the_mean(x):
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / (x.pow(2).mean(-1, keepdim=True) - mean.pow(2) + 1e-5).sqrt()


def _twice(x):
    square = (x * x) * 1e-4
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) + square.clamp(max=1)


NORMS = {
    "divided by their number": lambda x: x / ((x * x).sum(-1, keepdim=True) / 8 + 1e-6).sqrt(),
    "other spellings": lambda x: torch.divide(
        x, torch.multiply(x, x).mean(-1, keepdim=True).sqrt()
    ),
    "in place": _in_place,
    "of differences": _of_differences,
    "of pairs": _of_pairs,
    "less the square of the mean": _less_the_square_of_the_mean,
    "beside the same square": _twice,
    "root": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    "reciprocal": lambda x: x * ((x * x).mean(-1, keepdim=True) + 1e-6).sqrt().reciprocal(),
    "sum": lambda x: x / x.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-12),
}
