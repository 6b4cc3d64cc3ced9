# The sync agent: follows a registry beside a TensorFlow Serving, brings it what the labels name, and moves them. The
# gateway's agent is the same image: `slipway gateway` beside an Envoy.
#
#   docker build -f deploy/sync-agent.Dockerfile -t slipway-sync-agent .
#   docker run --rm slipway-sync-agent sync --help
#
# `slipway render compose` prints how it runs beside a server. It has neither TensorFlow nor Prefect: the registry, the
# command line, and what they need.
ARG BASE=python:3.12-slim
FROM ${BASE} AS build

WORKDIR /opt/slipway
COPY requirements/uv.txt requirements/base.txt requirements/pipeline.txt requirements/
# Compiled here: the user that runs it may not write there, and would compile it at each start.
RUN python3 -m venv /opt/tools \
    && /opt/tools/bin/python -m pip install --no-cache-dir --require-hashes -r requirements/uv.txt \
    && python3 -m venv --without-pip /opt/venv \
    && /opt/tools/bin/uv pip install --no-cache --python /opt/venv/bin/python --compile-bytecode --require-hashes \
        -r requirements/base.txt

# The locked setuptools builds it, so that nothing else is downloaded; it stays behind.
RUN sed -n '/^setuptools==/,/[^\\]$/p' requirements/pipeline.txt > requirements/build.txt \
    && /opt/tools/bin/python -m pip install --no-cache-dir --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY flows flows
COPY tasks tasks
COPY model_registry model_registry
RUN /opt/tools/bin/python -m pip wheel --no-cache-dir --no-index --no-deps --no-build-isolation -w dist . \
    && /opt/tools/bin/uv pip install --no-cache --offline --no-deps --python /opt/venv/bin/python --compile-bytecode \
        dist/*.whl


FROM ${BASE}

LABEL org.opencontainers.image.title="slipway-sync-agent" \
      org.opencontainers.image.description="Brings a TensorFlow Serving what the labels of a Slipway registry name, and an Envoy its routes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"

COPY --from=build /opt/venv /opt/venv

# A volume that is mounted here for the first time belongs to whom the directory belongs to.
RUN useradd --create-home --uid 10001 slipway \
    && install --directory --owner=slipway --group=slipway /models /var/lib/slipway
USER slipway
WORKDIR /home/slipway
ENV PATH=/opt/venv/bin:$PATH

# /healthz, /readyz, /status and /metrics of either agent, where --listen is not only this container's loopback.
EXPOSE 8502 8503
ENTRYPOINT ["slipway"]
CMD ["sync", "--help"]
