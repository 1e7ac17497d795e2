# The image of the sidecar: one static binary, the licences, nothing else. No shell, no libraries, no package manager.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --tag bellwether:0.1.0 .
#
# `make image-binary` runs the same steps without an image builder; the tests do, see scripts/image-stages.sh.

# As in Cargo.toml (rust-version).
ARG RUST_VERSION=1.95.0

# On the machine's own architecture, for the one that is wanted: nothing is emulated.
FROM --platform=$BUILDPLATFORM rust:${RUST_VERSION}-slim-bookworm AS builder
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ARG TARGETARCH
WORKDIR /src

COPY scripts/static-build.sh scripts/
# Debian removes a package's old version when it publishes a fix: a pinned one would break the build, not keep it.
# hadolint ignore=DL3008
RUN apt-get update \
    && scripts/static-build.sh packages "$TARGETARCH" | xargs apt-get install --yes --no-install-recommends \
    && rm -rf /var/lib/apt/lists/* \
    && rustup target add "$(scripts/static-build.sh triple "$TARGETARCH")"

# The dependencies are a layer of their own: it depends on the manifests only. What cargo fetches and builds stays in
# the layers, not in cache mounts, so that a layer taken from another machine's cache is complete.
COPY Cargo.toml Cargo.lock ./
COPY tests/simulation/Cargo.toml tests/simulation/
COPY tests/support/Cargo.toml tests/support/
RUN scripts/static-build.sh dependencies "$TARGETARCH"

COPY src src/
COPY scripts/third-party-licenses.sh scripts/
RUN mkdir image \
    && cp "$(scripts/static-build.sh binary "$TARGETARCH")" image/bellwether \
    && scripts/third-party-licenses.sh "$TARGETARCH" >image/THIRD-PARTY-LICENSES

FROM scratch
COPY LICENSE /licenses/
COPY --from=builder /src/image/THIRD-PARTY-LICENSES /licenses/
COPY --from=builder /src/image/bellwether /

# As numbers, so that Kubernetes can see that it is not root (runAsNonRoot), and because there is no /etc/passwd.
USER 65532:65532
# Telemetry. The local API is on loopback, for the containers of the same pod.
EXPOSE 4041
# Stands down in order and releases the lock.
STOPSIGNAL SIGTERM
# For `kubectl exec … -- bellwether status`.
ENV PATH=/
ENTRYPOINT ["/bellwether"]
# Configured by BELLWETHER_… variables; without them it says what is missing and exits with 64.
CMD ["run"]

# Last: they change with every build, and must not make a layer above stale.
ARG VERSION=0.1.0
ARG REVISION=
ARG CREATED=
ARG SOURCE=
LABEL org.opencontainers.image.title="bellwether" \
      org.opencontainers.image.description="Leader-election sidecar for Kubernetes, on etcd" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}"
