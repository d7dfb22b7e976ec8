# Exports for TensorRT, builds engines and runs them, on machines with an NVIDIA GPU.
# Build it from the root of the tree, and run it with `--gpus all`:
#   docker build --file docker/tensorrt.Dockerfile --tag qdx-tensorrt .
FROM nvcr.io/nvidia/tensorrt:25.10-py3 AS build

# Another index for PyTorch's builds; without one, pip takes its own, with CUDA.
ARG TORCH_INDEX
ARG TORCH_VERSION=2.13.0

COPY pyproject.toml README.md LICENSE /source/
COPY install /source/install
COPY exporter /source/exporter
COPY targets /source/targets
COPY backends /source/backends
COPY qdx /source/qdx

# The image's own TensorRT stays: the environment sees the packages of its system, and takes the system's pip.
RUN python3 -m venv --without-pip --system-site-packages /venv \
 && python3 -m pip --python /venv install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "torch==$TORCH_VERSION" \
 && python3 -m pip --python /venv install --no-cache-dir "/source[tensorrt]"

FROM nvcr.io/nvidia/tensorrt:25.10-py3

LABEL org.opencontainers.image.title="qdx-tensorrt" \
      org.opencontainers.image.description="Exports for TensorRT, builds engines and runs them on an NVIDIA GPU" \
      org.opencontainers.image.licenses="Apache-2.0"

COPY --from=build /venv /venv

RUN install --directory --mode 1777 /cache

ENV PATH=/venv/bin:$PATH \
    QDX_CACHE=/cache

USER 1000:1000
WORKDIR /work
ENTRYPOINT ["qdx"]
CMD ["--help"]
