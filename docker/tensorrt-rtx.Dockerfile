# Exports for RTX cards and builds their engines, which needs no GPU; ONNX Runtime computes their values on the processor.
# Build it from the root of the tree:
#   docker build --file docker/tensorrt-rtx.Dockerfile --build-arg TORCH_INDEX=URL --tag qdx-tensorrt-rtx .
FROM python:3.14-slim-trixie AS build

# An index of PyTorch's builds for processors; without one, pip takes the build with CUDA, ten times as large.
ARG TORCH_INDEX
ARG TORCH_VERSION=2.13.0

COPY pyproject.toml README.md LICENSE /source/
COPY install /source/install
COPY exporter /source/exporter
COPY targets /source/targets
COPY backends /source/backends
COPY qdx /source/qdx

RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "torch==$TORCH_VERSION" \
 && /venv/bin/pip install --no-cache-dir "/source[tensorrt-rtx]"

FROM python:3.14-slim-trixie

LABEL org.opencontainers.image.title="qdx-tensorrt-rtx" \
      org.opencontainers.image.description="Exports for RTX cards and builds their engines without a GPU" \
      org.opencontainers.image.licenses="Apache-2.0"

COPY --from=build /venv /venv

RUN useradd --uid 1000 --create-home qdx \
 && install --directory --mode 1777 /cache

ENV PATH=/venv/bin:$PATH \
    QDX_CACHE=/cache

USER 1000:1000
WORKDIR /work
ENTRYPOINT ["qdx"]
CMD ["--help"]
