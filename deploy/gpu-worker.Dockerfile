# The GPU worker: takes the conversions of the work pool `gpu`. TensorFlow 2.17.1 with TensorRT 8.6.1 and CUDA 12.3.
#
#   docker build -f deploy/gpu-worker.Dockerfile -t slipway-gpu-worker .
#   docker run --init --gpus all -e PREFECT_API_URL -e SLIPWAY_REGISTRY -e AWS_... slipway-gpu-worker
#   docker run --rm --gpus all slipway-gpu-worker slipway doctor     # what it finds
#
# It has not been built or run: where Slipway is developed there is no GPU and no base image. A test holds its
# versions against the lock and against what TensorFlow was built with.
#
# The base image knows NVIDIA's packages. TensorFlow Serving's own GPU images install TensorRT the same way; these
# packages bring libnvinfer.so.8.6.1 by that very name, which TF-TRT asks for and the Python wheels of TensorRT lack.
ARG BASE=nvidia/cuda:12.3.2-base-ubuntu22.04
FROM ${BASE}

ARG CUDA=12-3
ARG CUDNN=8.9.7.29-1+cuda12.2
# TensorRT 8.6 was built for CUDA 12.0 and runs with any later 12.
ARG TENSORRT=8.6.1.6-1+cuda12.0

ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        "cuda-nvrtc-${CUDA}" \
        "libcublas-${CUDA}" \
        "libcufft-${CUDA}" \
        "libcurand-${CUDA}" \
        "libcusolver-${CUDA}" \
        "libcusparse-${CUDA}" \
        "libcudnn8=${CUDNN}" \
        "libnvinfer8=${TENSORRT}" \
        "libnvinfer-plugin8=${TENSORRT}" \
        python3 \
        python3-venv \
        util-linux \
    && rm -rf /var/lib/apt/lists/* \
    && ldconfig

WORKDIR /opt/slipway
COPY requirements/uv.txt requirements/pipeline.txt requirements/
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/python -m pip install --no-cache-dir --require-hashes -r requirements/uv.txt \
    && /opt/venv/bin/python -m uv pip install --no-cache --python /opt/venv/bin/python --require-hashes \
        -r requirements/pipeline.txt

# The locked setuptools builds it, so that nothing more is downloaded.
COPY pyproject.toml README.md LICENSE ./
COPY flows flows
COPY tasks tasks
COPY model_registry model_registry
RUN /opt/venv/bin/python -m uv pip install --no-cache --offline --no-deps --no-build-isolation \
    --python /opt/venv/bin/python .

# Models are converted in processes without credentials and HOME. They are without a network too where the container
# may make user namespaces; Docker's default seccomp profile does not let it.
RUN useradd --create-home --uid 10001 slipway
USER slipway
WORKDIR /home/slipway
ENV PATH=/opt/venv/bin:$PATH \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    TF_FORCE_GPU_ALLOW_GROWTH=true

CMD ["prefect", "worker", "start", "--pool", "gpu"]
