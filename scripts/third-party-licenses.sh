#!/usr/bin/env bash
# Prints the licences of everything that is linked into the binary, as their terms ask of who distributes it.
#
#   scripts/third-party-licenses.sh ARCH        amd64 or arm64; the crates must have been fetched
#
# Crates with the same text stand together above it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
  printf 'scripts/third-party-licenses.sh: %s\n' "$*" >&2
  exit 1
}
[[ $# -eq 1 ]] || die "usage: scripts/third-party-licenses.sh amd64|arm64"
triple=$(scripts/static-build.sh triple "$1")
registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One line for each crate: name, version, licence expression. Macros run when the binary is built, they are not in it.
crates() {
  cargo tree --locked --offline --edges normal,no-proc-macro --target "$triple" --prefix none --no-dedupe \
    --package bellwether --format '{p}|{l}' | sort -u | sed -nE 's/^([^ ]+) v([^ |]+)\|(.*)$/\1 \2 \3/p'
}

# Files the licence texts of one crate under their hash.
collect() {
  local name=$1 version=$2 expression=$3 folder file hash found=
  folder=$(compgen -G "$registry/*/$name-$version" | head -n 1) || die "$name $version is not in $registry"
  shopt -s nocasematch
  for file in "$folder"/*; do
    [[ -f $file && ${file##*/} =~ ^(LICEN[CS]E|UNLICENSE|COPYING|COPYRIGHT|NOTICE) ]] || continue
    hash=$(sha256sum "$file" | cut -d ' ' -f 1)
    cp "$file" "$work/$hash.text"
    printf '%s %s (%s), %s\n' "$name" "$version" "$expression" "${file##*/}" >>"$work/$hash.crates"
    found=yes
  done
  if [[ -z $found ]]; then printf '%s %s (%s)\n' "$name" "$version" "$expression" >>"$work/without"; fi
}

while read -r name version expression; do
  collect "$name" "$version" "$expression"
done < <(crates)
compgen -G "$work/*.text" >/dev/null || die "no licence was found"

cat <<'TEXT'
Bellwether is licensed under the Apache License 2.0 (LICENSE). The binary contains the following besides.

The Rust standard library: MIT OR Apache-2.0, copyright the Rust project contributors.
The GNU C library, linked statically: LGPL-2.1-or-later. To link against another version of it, build Bellwether
from its source: scripts/static-build.sh.
TEXT
if [[ -s $work/without ]]; then
  printf '\nThese come without a text of their own; where they say MIT or Apache-2.0, the texts below say the same:\n'
  sed 's/^/  /' "$work/without"
fi
for crates in "$work"/*.crates; do
  printf '\n%s\n' "$(printf '=%.0s' {1..118})"
  cat "$crates"
  printf '%s\n\n' "$(printf -- '-%.0s' {1..118})"
  cat "${crates%.crates}.text"
done
