#!/usr/bin/env bash
# Lists what the image contains, with sizes in bytes, and fails when that is more than it may be.
#
#   scripts/image-contents.sh [ARCH]    ARCH: amd64 or arm64; makes it first, as the Dockerfile says, unless there is a
#                                       folder BELLWETHER_IMAGE that has it
#
# The image is these files and nothing else: its only stage with content is from scratch.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly bytes_most=10000000 # 10 MB

folder=${BELLWETHER_IMAGE:-$(scripts/image-stages.sh "$@")}
total=0
while read -r bytes mode path; do
  printf '%10d  %s  /%s\n' "$bytes" "$mode" "$path"
  total=$((total + bytes))
done < <(find "$folder" ! -type d -printf '%s %M %P\n' | sort -k 3)
printf '%10d  in all; at most %d\n' "$total" "$bytes_most"
if ((total == 0)); then
  echo "scripts/image-contents.sh: the image is empty" >&2
  exit 1
fi
if ((total > bytes_most)); then
  echo "scripts/image-contents.sh: the image is too large" >&2
  exit 1
fi
