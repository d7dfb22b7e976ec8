"""Every limit on untrusted input, in one place.

A small file must not be able to cost much memory or time. Each limit is well above what real
pipelines need and is raised only by the caller that knows why.
"""

from __future__ import annotations

from typing import Final

MIB: Final = 1024 * 1024

PLAN_LIMIT_BYTES: Final = 1 * MIB
JSON_LIMIT_BYTES: Final = 16 * MIB
# A report: every compared call of every run, about 300 bytes each.
REPORT_LIMIT_BYTES: Final = 64 * MIB
JSON_DEPTH: Final = 32
# An integer beyond this is not exact in a JSON reader that uses doubles.
JSON_INT_LIMIT: Final = 2**53
# Tokenizer configs carry `int(1e30)`, which has 31 digits.
JSON_INT_DIGITS: Final = 40

# The format allows 100 MB. 16 MiB is room for 60,000 tensors, and parsing stays below 256 MiB.
SAFETENSORS_HEADER_LIMIT_BYTES: Final = 16 * MIB
TENSOR_RANK_LIMIT: Final = 16
TENSOR_NAME_LIMIT: Final = 512

# A target's file. The largest that comes with qdx has 12 kB and lines of 180 characters.
TARGET_LIMIT_BYTES: Final = 64 * 1024
TARGET_KERNELS_LIMIT: Final = 256
TARGET_KEYS_LIMIT: Final = 128
TOML_LINE_LIMIT: Final = 1000
TOML_DEPTH: Final = 8

# Configurations of other tools: those of a layer each have some hundred kilobytes.
FOREIGN_PLAN_LIMIT_BYTES: Final = 1 * MIB
YAML_EVENTS_LIMIT: Final = 100_000
# Patterns of strangers: alternatives that one becomes, and characters of it.
PATTERN_ALTERNATIVES_LIMIT: Final = 64
PATTERN_LIMIT: Final = 512

# What libraries build from a configuration. Real models stay below 5,000 parameters (a layer's
# tensors), 1,000 training steps and 100 MB for a filled table.
PARAMETERS_LIMIT: Final = 20_000
FILLED_TENSOR_LIMIT_BYTES: Final = 1024 * MIB
TRAINING_STEPS_LIMIT: Final = 1_000_000
# Of adapters that an artifact takes at run time; more than that is a matrix of its own size.
LORA_RANK_LIMIT: Final = 1024
PROMPT_TOKENS_LIMIT: Final = 2**24
HELPER_FILE_LIMIT_BYTES: Final = 256 * MIB
# Parameters that a pipeline's own Python reads, which a bundle keeps beside its artifacts. The embedding of CLIP's
# text encoders takes 145 MiB.
VALUES_READ_LIMIT_BYTES: Final = 256 * MIB
# Images for a pipeline call.
IMAGE_FILE_LIMIT_BYTES: Final = 64 * MIB
IMAGE_SIDE_LIMIT_PIXELS: Final = 8192
# Videos for a pipeline call: every frame is held in memory.
VIDEO_FILE_LIMIT_BYTES: Final = 1024 * MIB
VIDEO_FRAMES_LIMIT: Final = 4096
# A tensor that a bundle records by its shape, made of noise again: embeddings and latents of videos stay below.
CALL_TENSOR_LIMIT_ELEMENTS: Final = 2**28

PATH_SEGMENT_LIMIT: Final = 128
PATH_SEGMENTS_LIMIT: Final = 16
BUNDLE_FILES_LIMIT: Final = 4096
# A stored reference has a file for each distinct tensor of every call, step and seed.
REFERENCE_FILES_LIMIT: Final = 32_768

# Longest piece of foreign text that an error message repeats.
QUOTE_LIMIT: Final = 240

# A file of recorded ranges: activations of one graph, and timesteps of one schedule.
RANGES_TENSORS_LIMIT: Final = 100_000
RANGES_TIMESTEPS_LIMIT: Final = 10_000
# Prompts for calibration, one on each line.
PROMPTS_FILE_LIMIT_BYTES: Final = 4 * MIB
PROMPTS_LIMIT: Final = 10_000
PROMPT_LIMIT: Final = 4096

# A package. The program itself holds no weights: that of a large denoiser has some megabytes.
MIL_PROGRAM_LIMIT_BYTES: Final = 64 * MIB
MIL_OPERATIONS_LIMIT: Final = 200_000
# Compressed weights within compressed weights: a sparse palette of quantized entries has three.
MIL_NESTED_LIMIT: Final = 4
# Of one value.
MIL_ELEMENTS_LIMIT: Final = 2**33
