# hotprompt in a container, for a GPU or without one. docs/container.md says how to run it.
#
#   docker build -t hotprompt .                                                     torch's CUDA build
#   docker build --build-arg VARIANT=cpu --build-arg PIP_EXTRA_INDEX_URL=... -t hotprompt .     an index that has CPU builds of torch
#   docker build --build-arg EMBEDDED_BASE=0 -t hotprompt .                         without the embedded base model
#
# No Docker engine was at hand where this file was written: its steps lie in packaging/, where `make container-check` runs them. The
# digests of base images here and in compose.yaml are those that several public projects pin beside the same tags.

ARG VARIANT=cuda

FROM python:3.13.15-slim-bookworm@sha256:2325bb286ec344af3e5898cc224b5844e2707ac6e26b1632516fd3edc84a5e26 AS python

FROM python AS build
ARG VARIANT
ARG EMBEDDED_BASE=1
ARG PIP_EXTRA_INDEX_URL=
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY packaging/container-install.sh packaging/
COPY pyproject.toml requirements.lock ./
RUN packaging/container-install.sh dependencies /opt/hotprompt
COPY . .
RUN packaging/container-install.sh program /opt/hotprompt

# The OpenMP runtime is for the native decoder.
FROM python AS runtime-cpu
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*

# torch's wheels bring the CUDA libraries, the machine brings the driver. Triton compiles its launchers with a C compiler.
FROM python AS runtime-cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    TRITON_CACHE_DIR=/data/models/triton
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libgomp1 \
    && rm -rf /var/lib/apt/lists/*

# One of the two stages above:
# hadolint ignore=DL3006
FROM runtime-${VARIANT} AS runtime
RUN useradd --no-create-home --home-dir /tmp --uid 10001 hotprompt \
    && install --directory --owner hotprompt --group hotprompt /data/models /data/store
COPY --from=build /opt/hotprompt /opt/hotprompt
# Written to: /data/models (the base model, a hub's files), /data/store (adapters) and /tmp (uploads as they come in). Nothing else.
ENV PATH=/opt/hotprompt/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/data/models/hub \
    HF_HUB_DISABLE_TELEMETRY=1 \
    HOTPROMPT_HOME=/data \
    HOTPROMPT_STORE=/data/store \
    HOTPROMPT_HOST=0.0.0.0 \
    HOTPROMPT_PORT=8000
VOLUME ["/data/models", "/data/store"]
EXPOSE 8000
USER 10001:10001
WORKDIR /tmp
HEALTHCHECK --start-period=300s --start-interval=2s --interval=10s --timeout=6s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"HOTPROMPT_PORT\"]}/health', timeout=5)"]
ENTRYPOINT ["hotprompt-start"]
CMD []
