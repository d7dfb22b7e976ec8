"""Where the products of attention gain from 8 bits on OpenVINO: the rows `slower_below_macs` of targets.

One attention between the projections' layout [batch, tokens, channels], in float32 as one fused
operator and with both products in 8 bits, run in turns. The least time of each counts.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from qdx.targets import load_target

BATCH, HEADS, HEAD_DIM = 2, 8, 40
CLIP = 5.0  # standard deviations


def main() -> None:
    """Prints a row for each number of tokens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 32, 64, 128, 256, 1024])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    print("tokens  multiply-accumulates of a product  float ms  int8 ms  times as fast")
    for tokens in arguments.tokens:
        floats, integers = least_ms(tokens, arguments.threads)
        macs = BATCH * HEADS * tokens * tokens * HEAD_DIM
        print(f"{tokens:6}  {macs:33,}  {floats:8.3f}  {integers:7.3f}  {floats / integers:13.2f}")


def least_ms(tokens: int, threads: int) -> tuple[float, float]:
    """The least times in milliseconds, float first."""
    options = {**load_target("openvino").options, "INFERENCE_NUM_THREADS": str(threads)}
    core = ov.Core()
    requests = [
        core.compile_model(
            attention(tokens, quantized=quantized), "CPU", options
        ).create_infer_request()
        for quantized in (False, True)
    ]
    generator = np.random.default_rng(0)
    size = (BATCH, tokens, HEADS * HEAD_DIM)
    inputs = [generator.standard_normal(size).astype(np.float32) for _ in range(3)]
    rounds = max(15, min(300, 2 * 10**9 // (BATCH * HEADS * tokens**2 * HEAD_DIM)))
    least = [float("inf")] * len(requests)
    for _ in range(rounds):
        for index, request in enumerate(requests):
            start = time.perf_counter()
            request.infer(inputs)
            least[index] = min(least[index], 1e3 * (time.perf_counter() - start))
    return least[0], least[1]


def attention(tokens: int, *, quantized: bool) -> ov.Model:
    """One attention over [batch, tokens, heads * head size]."""
    shape = [BATCH, tokens, HEADS * HEAD_DIM]
    parameters = [ops.parameter(shape, np.float32) for _ in range(3)]
    query, key, value = (_heads(parameter, tokens) for parameter in parameters)
    if quantized:
        scale = HEAD_DIM**-0.5
        scaled = _rounded(ops.multiply(query, _constant(scale)), -CLIP * scale, CLIP * scale)
        scores = ops.matmul(scaled, _rounded(key, -CLIP, CLIP), False, True)
        probabilities = _rounded(ops.softmax(scores, 3), 0, 1)
        mixed = ops.matmul(probabilities, _rounded(value, -CLIP, CLIP), False, False)
    else:
        mixed = ops.scaled_dot_product_attention(query, key, value, causal=False)
    joined = ops.transpose(mixed, ops.constant(np.array([0, 2, 1, 3])))
    result = ops.reshape(joined, ops.constant(np.array(shape)), False)
    return ov.Model([ops.result(result)], parameters)


def _heads(value: ov.Node, tokens: int) -> ov.Node:
    split = ops.reshape(value, ops.constant(np.array([BATCH, tokens, HEADS, HEAD_DIM])), False)
    return ops.transpose(split, ops.constant(np.array([0, 2, 1, 3])))


def _rounded(value: ov.Node, low: float, high: float) -> ov.Node:
    """In 256 levels; a signed range has its zero point at zero."""
    least = low * 128 / 127 if low < 0 else low
    ends = [_constant(end) for end in (least, high, least, high)]
    return ops.fake_quantize(value, *ends, 256)


def _constant(value: float) -> ov.Node:
    return ops.constant(np.float32(value))


if __name__ == "__main__":
    main()
