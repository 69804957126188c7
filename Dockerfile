# The service only. MONGO_URI and NATS_URL say where MongoDB and NATS are.
# A configuration file of mongodb-nats-connector goes to /app/connector.yaml.

# Each base is named once, by its digest, which is that of all architectures. renovate.json proposes newer ones.
FROM python:3.12-slim-bookworm@sha256:0f5b26b9518d002b6173fd61daad821fa340635ebfec5bba471013f9ca114579 AS base
FROM rust:1.95-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082 AS rust

FROM base AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /src
# The dependencies first: this layer is reused while only the code changes. uv.lock names them, and the tools that build
# the wheel in an environment of their own.
COPY requirements-uv.lock ./
RUN pip install --no-deps --require-hashes -r requirements-uv.lock
COPY pyproject.toml uv.lock ./
RUN UV_PROJECT_ENVIRONMENT=/opt/changewire uv sync --frozen --no-dev --no-install-project \
    && UV_PROJECT_ENVIRONMENT=/opt/build uv sync --frozen --only-group build
# A Rust toolchain and a linker build the native transcoder. Without them the image would encode in Python.
COPY --from=rust /usr/local/rustup /usr/local/rustup
COPY --from=rust /usr/local/cargo /usr/local/cargo
ENV PATH=/usr/local/cargo/bin:$PATH RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY MANIFEST.in LICENSE ./
COPY docs/pypi.md docs/pypi.md
COPY native native
COPY app app
RUN uv build --wheel --no-build-isolation --python /opt/build/bin/python --out-dir /wheels \
    && uv pip install --python /opt/changewire/bin/python --no-deps /wheels/*.whl \
    && /opt/changewire/bin/python -c 'import app._native'

FROM base
# The version and the commit are labels too: the release workflow adds them.
LABEL org.opencontainers.image.title="Changewire" \
    org.opencontainers.image.description="Publishes MongoDB change streams to NATS JetStream: once, in order, and fast." \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.source="https://github.com/changewire/changewire" \
    org.opencontainers.image.documentation="https://github.com/changewire/changewire/blob/main/docs/container.md"
COPY --from=build /opt/changewire /opt/changewire
# MALLOC_ARENA_MAX: otherwise glibc keeps an arena for every thread that waits on a change stream.
ENV PATH=/opt/changewire/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=2 \
    SERVER_ADDR=0.0.0.0:8080
WORKDIR /app
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['SERVER_ADDR'].rpartition(':')[2] + '/livez', timeout=2)"]
ENTRYPOINT ["changewire"]
CMD ["serve"]
