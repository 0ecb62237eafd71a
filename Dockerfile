# The server `backboned` for CPUs, x86-64: docker build -t backboned .
# deploy/README.md says how to run it.

# What the build needs: Debian's compiler and libraries (as in
# requirements/debian.txt, without those of the tests), and LibTorch.
FROM debian:bookworm-slim AS libraries
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates \
        cmake \
        g++ \
        libabsl-dev \
        libcli11-dev \
        libgrpc++-dev \
        libprotobuf-dev \
        libspdlog-dev \
        libssl-dev \
        ninja-build \
        nlohmann-json3-dev \
        pkg-config \
        protobuf-compiler \
        protobuf-compiler-grpc \
        python3-pip \
    && rm -rf /var/lib/apt/lists/*

# The CPU part of the PyPI wheel, the one that the tests run with. It is linked to
# two small CUDA libraries; the gigabytes of others are left out by --no-deps.
RUN pip install --no-cache-dir --no-deps --target /opt/torch \
        torch==2.11.0 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85

# Without its symbol table libtorch_cpu.so is a fifth smaller; the code is the same.
RUN mkdir -p /opt/backboned/lib \
    && cd /opt/torch \
    && cp torch/lib/libtorch_cpu.so torch/lib/libc10.so torch/lib/libgomp.so.1 \
        nvidia/cu13/lib/libcudart.so.13 nvidia/cu13/lib/libcupti.so.13 \
        /opt/backboned/lib/ \
    && strip --strip-unneeded /opt/backboned/lib/libtorch_cpu.so


FROM libraries AS build
WORKDIR /src
COPY CMakeLists.txt CMakePresets.json ./
COPY cmake cmake
COPY proto proto
COPY backbones backbones
COPY server server
COPY client/cpp client/cpp
# A file of LibTorch's takes 1 GB to compile: on a machine with many cores and little
# memory, docker build --build-arg CMAKE_BUILD_PARALLEL_LEVEL=2.
ARG CMAKE_BUILD_PARALLEL_LEVEL
RUN cmake --preset release \
        -DBACKBONED_TESTS=OFF \
        -DBACKBONED_BENCHMARKS=OFF \
        -DBACKBONED_EXAMPLES=OFF \
        -DBACKBONED_TORCH_DIR=/opt/torch/torch \
    && cmake --build --preset release --target backboned \
    && cmake --install build/release --prefix /opt/backboned --strip


FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="Backboned" \
      org.opencontainers.image.description="Hosts the backbones of continual learners over gRPC (CPU)" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        libgrpc++1.51 \
        libprotobuf32 \
        libspdlog1.10 \
        libssl3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/backboned /opt/backboned

# Loopback inside a container reaches nobody, so the server listens on all of the
# container's addresses. It has neither authentication nor encryption: who may reach
# it is decided where the port is published. Publish it on 127.0.0.1.
ENV BACKBONED_LISTEN=0.0.0.0:50051 \
    BACKBONED_INSECURE_REMOTE=1
EXPOSE 50051
USER 10001:10001
STOPSIGNAL SIGTERM
# No HEALTHCHECK: the image holds no program that could ask. Ask grpc.health.v1 from
# outside.
ENTRYPOINT ["/opt/backboned/bin/backboned"]
