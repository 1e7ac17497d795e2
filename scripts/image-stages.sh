#!/usr/bin/env bash
# Carries out the Dockerfile without an image builder: what it copies and runs, in folders instead of layers.
#
#   scripts/image-stages.sh [ARCH]      prints the folder that has what the image has; ARCH: amd64 or arm64
#
# So that the tests run the very commands of the Dockerfile, and what its COPY lines or .dockerignore forget is missed
# here too. Two things are taken as given: the machine's packages and Rust targets (a RUN line with apt-get is left
# out), and the base image. protoc is needed, in PROTOC or on the PATH.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

say() { printf '%s\n' "$*" >&2; }
die() {
  say "scripts/image-stages.sh: $*"
  exit 1
}

case ${1:-$(uname -m)} in
  amd64 | x86_64) TARGETARCH=amd64 ;;
  arm64 | aarch64) TARGETARCH=arm64 ;;
  *) die "usage: scripts/image-stages.sh [amd64|arm64]" ;;
esac
export TARGETARCH
# Shared with what else is built here: the crates of the registry are the same ones.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
export CARGO_TERM_COLOR=never # the output is looked at

readonly stages=$CARGO_TARGET_DIR/image/$TARGETARCH
readonly workdir=$stages/src final=$stages/root
dependencies_were_built=

# The Dockerfile's instructions, one a line, without comments.
instructions() {
  awk '
    /^[[:space:]]*(#|$)/ { next }
    { sub(/^[[:space:]]+/, ""); line = line $0 }
    /\\$/ { sub(/\\$/, "", line); next }
    { print line; line = "" }' Dockerfile
}

# Whether .dockerignore lets a file or folder through to the builder.
is_in_context() {
  local entry
  while IFS= read -r entry; do
    entry=${entry#!}
    if [[ $1 == "$entry" || $1 == "$entry"/* ]]; then return; fi
  done < <(grep '^!' .dockerignore)
  return 1
}

# copy_into FOLDER BASE SOURCE… DESTINATION: as COPY does, with the sources below BASE. Keeps time stamps: cargo goes by them.
copy_into() {
  local folder=$1 base=$2 destination=${*: -1} source
  for source in "${@:3:$#-3}"; do
    if [[ -d $base/$source ]]; then
      mkdir -p "$folder/$destination"
      cp -Rp "$base/$source/." "$folder/$destination"
    elif [[ $destination == */ ]]; then
      mkdir -p "$folder/$destination"
      cp -p "$base/$source" "$folder/$destination"
    else
      mkdir -p "$(dirname "$folder/$destination")"
      cp -p "$base/$source" "$folder/$destination"
    fi
  done
}

copy_to_builder() {
  local source
  for source in "${@:1:$#-1}"; do
    is_in_context "$source" || die "COPY $source: .dockerignore keeps it from the builder"
  done
  copy_into "$workdir" "$root" "$@"
}

copy_to_final() {
  if [[ $1 == --from=builder ]]; then
    shift
    # The builder's WORKDIR is /src.
    copy_into "$final" "$workdir" "${@/#\/src\//}"
  else
    local source
    for source in "${@:1:$#-1}"; do
      is_in_context "$source" || die "COPY $source: .dockerignore keeps it from the builder"
    done
    copy_into "$final" "$root" "$@"
  fi
}

run_in_builder() {
  (cd "$workdir" && bash -euo pipefail -c "$1")
}

# The layer that takes minutes comes from the cache while nothing before it has changed, as it does in an image builder.
run_dependencies() {
  local key
  key=$(
    cd "$workdir"
    { echo "$1" && rustc --version && find . -type f -print0 | sort -z | xargs -0 sha256sum; } | sha256sum | cut -d ' ' -f 1
  )
  if [[ -f $stages/dependencies && $(<"$stages/dependencies") == "$key" ]]; then
    say "cached: RUN $1"
    # What it leaves besides what cargo has built.
    cp -Rp "$stages/dependencies.left/." "$workdir"
    return
  fi
  say "RUN $1"
  rm -rf "$stages"/dependencies*
  run_in_builder "$1"
  cp -Rp "$workdir" "$stages/dependencies.left"
  echo "$key" >"$stages/dependencies"
  dependencies_were_built=yes
}

run() {
  case $1 in
    *apt-get*) say "left out: RUN $1" ;;
    'scripts/static-build.sh dependencies '*) run_dependencies "$1" ;;
    *)
      say "RUN $1"
      run_in_builder "$1" 2>&1 | tee "$stages/log" >&2
      if [[ -n $dependencies_were_built ]]; then check_dependency_layer; fi
      ;;
  esac
}

# With the dependencies in a layer below, only our own crate may be left to compile.
check_dependency_layer() {
  if grep -E '^ *Compiling ' "$stages/log" | grep -vE '^ *Compiling bellwether v' >&2; then
    die "these were compiled although they should have been in the layer of the dependencies"
  fi
  grep -qE '^ *Compiling bellwether v' "$stages/log" || die "bellwether was not compiled from its real sources"
}

stage=
mkdir -p "$stages"
rm -rf "$workdir" "$final"
mkdir "$workdir" "$final"
while read -r word rest; do
  case $stage:$word in
    *:FROM) if [[ $rest == scratch ]]; then stage=final; else stage=builder; fi ;;
    builder:COPY) IFS=' ' read -ra words <<<"$rest" && copy_to_builder "${words[@]}" ;;
    final:COPY) IFS=' ' read -ra words <<<"$rest" && copy_to_final "${words[@]}" ;;
    builder:RUN) run "$rest" ;;
    *:ARG | builder:SHELL | builder:WORKDIR) ;;
    final:ENV | final:USER | final:EXPOSE | final:STOPSIGNAL | final:ENTRYPOINT | final:CMD | final:LABEL) ;;
    *) die "does not know what to do with: $word $rest" ;;
  esac
done < <(instructions)
[[ $stage == final ]] || die "the Dockerfile has no final stage from scratch"
printf '%s\n' "$final"
