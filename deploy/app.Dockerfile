# The project's own processes: topics, shipper, worker, detector. One image, one user, no state.
FROM python:3.12-slim AS build
# The compiled reader of usage needs a compiler; the image that runs does not.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
RUN python -m pip install --no-cache-dir uv==0.13.9 && uv venv /opt/venv
WORKDIR /src
# What the project needs at run time, at the lock file's versions and none other than its hashes.
COPY pyproject.toml locks/app.txt ./
RUN uv pip install --python /opt/venv/bin/python --require-hashes \
      -r pyproject.toml --constraints app.txt
COPY README.md LICENSE ./
COPY metering metering
COPY detectors detectors
COPY sinks sinks
COPY streams streams
RUN uv pip install --python /opt/venv/bin/python --no-deps . \
    && /opt/venv/bin/python -m compileall -q /opt/venv

FROM python:3.12-slim
# The same id as triton-server has in Triton's image: the two share the usage log.
RUN groupadd --gid 1000 meter \
    && useradd --uid 1000 --gid 1000 --no-create-home --shell /usr/sbin/nologin meter \
    && install -d -o 1000 -g 1000 -m 0750 \
      /var/lib/inference-meter/usage-log /var/lib/inference-meter/state
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
WORKDIR /var/lib/inference-meter
# Fails the build, rather than the start, if a process can't be imported.
RUN python -c "import streams.shipper.__main__, streams.sentinel.__main__, \
streams.worker.__main__, streams.detection.__main__, streams.reconciler.__main__, \
streams.cli.main; from metering import scanner, writer"
CMD ["python", "-m", "streams.worker"]
