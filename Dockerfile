# The server `backboned`, x86-64: docker build -t backboned .
# With LibTorch's CUDA libraries: docker build --build-arg CUDA=1 -t backboned:cuda .
# The Python client, with torch: docker build --target trainer -t backboned-trainer .
# docs/container.md says how to run them.

# What the build needs: Debian's compiler and libraries (as in
# requirements/debian.txt, and ccache), and LibTorch.
FROM debian:bookworm-slim AS libraries
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates \
        ccache \
        cmake \
        g++ \
        libabsl-dev \
        libboost-dev \
        libcli11-dev \
        libgrpc++-dev \
        libprotobuf-dev \
        libspdlog-dev \
        libsqlite3-dev \
        libssl-dev \
        libyaml-cpp-dev \
        ninja-build \
        nlohmann-json3-dev \
        pkg-config \
        prometheus-cpp-dev \
        protobuf-compiler \
        protobuf-compiler-grpc \
        python3-pip \
    && rm -rf /var/lib/apt/lists/*

# The CPU part of the PyPI wheel, the one that the tests run with. It is linked to
# two small CUDA libraries; the gigabytes of others are left out by --no-deps. Headers
# of the last package are for the library of CUDA graphs.
RUN pip install --no-cache-dir --no-deps --target /opt/torch \
        torch==2.11.0 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85 \
        nvidia-cuda-crt==13.0.88


# The program, the same as the wheel's: gRPC and the rest are in it. Compiled files are
# kept between builds (BuildKit, Podman).
FROM libraries AS build
WORKDIR /src
COPY CMakeLists.txt CMakePresets.json LICENSE ./
COPY cmake cmake
COPY base base
COPY proto proto
COPY backbones backbones
COPY users users
COPY client/cli client/cli
COPY client/cpp client/cpp
COPY client/native client/native
COPY client/python/src/backboned/version.py client/python/src/backboned/
COPY deploy/sbom.py deploy/
COPY server server
# A batch of sources takes up to 2 GB to compile: on a machine with many cores and little
# memory, docker build --build-arg CMAKE_BUILD_PARALLEL_LEVEL=2.
ARG CMAKE_BUILD_PARALLEL_LEVEL
RUN --mount=type=cache,target=/root/.cache/ccache \
    cmake --preset release \
        -DBACKBONED_STATIC=ON \
        -DBACKBONED_TESTS=OFF \
        -DBACKBONED_BENCHMARKS=OFF \
        -DBACKBONED_EXAMPLES=OFF \
        -DBACKBONED_TORCH_DIR=/opt/torch/torch \
    && cmake --build --preset release --target backboned --target backbonectl \
    && cmake --install build/release --prefix /opt/backboned --strip --component server


# The shared libraries that the image carries besides Debian's, and their licences.
FROM libraries AS shared
ARG CUDA=0
RUN if [ "$CUDA" = 1 ]; then \
        pip install --no-cache-dir --upgrade --target /opt/torch torch==2.11.0; \
    fi
# Without its symbol table libtorch_cpu.so is a fifth smaller; the code is the same.
WORKDIR /opt/backboned/lib
RUN cp /opt/torch/torch/lib/libtorch_cpu.so /opt/torch/torch/lib/libc10.so \
        /opt/torch/torch/lib/libgomp.so.1 \
        /usr/lib/x86_64-linux-gnu/libprometheus-cpp-core.so.1.0 \
        /opt/torch/nvidia/cu13/lib/libcudart.so.13 \
        /opt/torch/nvidia/cu13/lib/libcupti.so.13 . \
    && strip --strip-unneeded libtorch_cpu.so \
    && if [ "$CUDA" = 1 ]; then \
        find /opt/torch/torch/lib /opt/torch/nvidia -name 'lib*.so*' -type f \
            ! -name 'libtorch_python*' -exec cp --no-clobber {} . \; ; \
    fi
WORKDIR /opt/backboned/licenses
# cuSPARSELt's wheel has its licence elsewhere.
RUN set -e; \
    for wheel in /opt/torch/torch-*.dist-info /opt/torch/nvidia_*.dist-info; do \
        name=$(basename "$wheel" .dist-info); \
        case $name in \
            nvidia_cusparselt_*) \
                install -D -m 644 -t "$name" /opt/torch/nvidia/cusparselt/LICENSE.txt ;; \
            *) cp -r "$wheel/licenses" "$name" ;; \
        esac; \
    done


# What the program runs in, without the program.
FROM debian:bookworm-slim AS runtime
# For a volume, which takes its owner from here.
RUN install -d -o 10001 -g 10001 -m 0700 /var/lib/backboned
COPY --from=shared /opt/backboned /opt/backboned


# The list of what the image consists of.
FROM shared AS sbom
WORKDIR /sbom
COPY --from=runtime /var/lib/dpkg/status runtime/var/lib/dpkg/status
COPY --from=runtime /usr/share/doc runtime/usr/share/doc
COPY --from=build /opt/backboned/sboms program/sboms
COPY deploy/sbom.py client/python/src/backboned/version.py ./
RUN python3 sbom.py --version version.py \
        image --runtime runtime --wheels /opt/torch --program program >sbom.json


# A trainer: the Python client and what its demo needs, of the versions that the
# tests run with.
FROM debian:bookworm-slim AS trainer
LABEL org.opencontainers.image.title="Backboned trainer" \
      org.opencontainers.image.description="The Python client of Backboned, with PyTorch" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates \
        python3 \
        python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv
COPY requirements/demo.txt /opt/venv/
RUN /opt/venv/bin/pip install --no-cache-dir -r /opt/venv/demo.txt
COPY client/python /opt/client/python
COPY client/mammoth /opt/client/mammoth
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation \
        /opt/client/python /opt/client/mammoth
# The user has no home.
ENV HOME=/tmp \
    PATH=/opt/venv/bin:$PATH
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["python"]
CMD ["-m", "backboned.demo", "--help"]


FROM runtime AS server
LABEL org.opencontainers.image.title="Backboned" \
      org.opencontainers.image.description="Hosts the backbones of continual learners over gRPC" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"
COPY --from=sbom /sbom/sbom.json /usr/share/backboned/sbom.json
COPY --from=build /opt/backboned/licenses /opt/backboned/licenses
COPY --from=build /opt/backboned/bin /opt/backboned/bin

# Loopback inside a container reaches nobody, so the server listens on all of the
# container's addresses. It has neither authentication nor encryption: who may reach
# it is decided where the port is published. Publish it on 127.0.0.1.
ENV BACKBONED_LISTEN=0.0.0.0:50051 \
    BACKBONED_INSECURE_REMOTE=1
EXPOSE 50051
USER 10001:10001
WORKDIR /var/lib/backboned
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=8s --start-period=60s --retries=3 \
    CMD ["/opt/backboned/bin/backboned", "--check"]
ENTRYPOINT ["/opt/backboned/bin/backboned"]
