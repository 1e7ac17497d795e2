#!/usr/bin/env bash
# Builds the static binary that the image carries. The Dockerfile's builder runs this, and so do the tests.
#
#   scripts/static-build.sh binary ARCH         the binary; prints where it is
#   scripts/static-build.sh dependencies ARCH   only what it depends on: all that is needed are the manifests
#   scripts/static-build.sh triple ARCH         how Rust calls the architecture
#   scripts/static-build.sh packages ARCH       the Debian packages that building for it takes beside Rust
#
# ARCH as in BuildKit's TARGETARCH: amd64 or arm64. Needed: the Rust target, and protoc (PROTOC or on the PATH).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s\n' "$*" >&2; }
die() {
  say "scripts/static-build.sh: $*"
  exit 1
}
usage() { die "usage: scripts/static-build.sh binary|dependencies|triple|packages amd64|arm64"; }

# Rust's name of an architecture, as dpkg and BuildKit call it.
triple_of() {
  case $1 in
    amd64) echo x86_64-unknown-linux-gnu ;;
    arm64) echo aarch64-unknown-linux-gnu ;;
    *) die "unknown architecture: $1 (amd64 or arm64)" ;;
  esac
}

# The prefix of its cross compiler's programs, as Debian names them.
cross_prefix_of() {
  case $1 in
    amd64) echo x86_64-linux-gnu ;;
    arm64) echo aarch64-linux-gnu ;;
    *) die "unknown architecture: $1 (amd64 or arm64)" ;;
  esac
}

own_architecture() {
  case $(uname -m) in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    *) uname -m ;;
  esac
}

packages() {
  local prefix
  prefix=$(cross_prefix_of "$1")
  # The build script of etcd-client calls protoc, which needs the types that libprotobuf-dev has.
  echo protobuf-compiler libprotobuf-dev
  if [[ $1 == "$(own_architecture)" ]]; then
    echo gcc libc6-dev
  else
    # Debian writes package names with '-' where the programs have '_'.
    echo "gcc-${prefix//_/-}" "libc6-dev-$1-cross"
  fi
}

# settle ARCH: what cargo must know to build a static binary for it.
settle() {
  local arch=$1 triple variable
  triple=$(triple_of "$arch")
  variable=${triple//-/_}
  # By target, so that build scripts and macros, which run here, are built as usual. These replace the caller's
  # RUSTFLAGS, as a static binary with half of the flags would be none.
  unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
  export "CARGO_TARGET_${variable^^}_RUSTFLAGS=-C target-feature=+crt-static"
  if [[ $arch != "$(own_architecture)" ]]; then
    local compiler
    compiler=$(cross_prefix_of "$arch")-gcc
    type -P "$compiler" >/dev/null || die "no $compiler: install $(packages "$arch" | xargs)"
    export "CARGO_TARGET_${variable^^}_LINKER=$compiler" # links
    export "CC_${variable}=$compiler"                    # compiles the C and assembly of ring
  fi
}

build() {
  settle "$1"
  cargo build --release --locked --bin bellwether --target "$(triple_of "$1")" >&2
}

# An empty source for each that the manifests name or cargo expects, so that they can be built without ours. In the
# image this is a layer of its own, which is taken from the cache until a manifest changes.
dependencies() {
  [[ ! -e src ]] || die "there are sources here: 'dependencies' is for a folder that has only the manifests"
  local manifest source sources=(src/lib.rs src/main.rs)
  for manifest in Cargo.toml tests/*/Cargo.toml; do
    while IFS= read -r source; do
      sources+=("$(dirname "$manifest")/$source")
    done < <(sed -n 's/^path *= *"\(.*\.rs\)"$/\1/p' "$manifest")
  done
  for manifest in tests/*/Cargo.toml; do sources+=("${manifest%Cargo.toml}src/lib.rs"); done
  for source in "${sources[@]}"; do
    mkdir -p "$(dirname "$source")"
    echo '#![allow(dead_code, missing_docs)] fn main() {}' >"$source"
  done
  build "$1"
  # Cargo goes by time stamps, and the real sources may be older than what was built from the empty ones.
  cargo clean --quiet --release --locked --package bellwether --target "$(triple_of "$1")"
  # The others stay: cargo wants every source that a manifest names, also of what it does not build.
  rm -r src
}

binary() {
  build "$1"
  printf '%s\n' "${CARGO_TARGET_DIR:-target}/$(triple_of "$1")/release/bellwether"
}

[[ $# -eq 2 ]] || usage
case $1 in
  binary | dependencies | packages) "$1" "$2" ;;
  triple) triple_of "$2" ;;
  *) usage ;;
esac
