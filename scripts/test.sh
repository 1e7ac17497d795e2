#!/usr/bin/env bash
# Runs every test of the workspace and ends with one line: "N passed, N failed".
# Arguments go to `cargo test`. The exit code is cargo's; that nothing was tested is a failure as well.
#
#   scripts/test.sh --tools ARGUMENT…    prints what these tests need of scripts/tools.sh beside protoc and etcd
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# runs PREFIX ARGUMENT…: whether cargo runs the tests in tests/PREFIX… then: it does unless told which, and not those.
runs() {
  local prefix=$1 told=no
  shift
  while [[ $# -gt 0 && $1 != -- ]]; do
    case $1 in
      "--test=$prefix"* | --tests | --all-targets) return 0 ;;
      --test)
        [[ ${2:-} != "$prefix"* ]] || return 0
        told=yes
        ;;
      --test=* | --lib | --bin | --bin=* | --bins | --doc | --example | --example=* | --examples) told=yes ;;
    esac
    shift
  done
  [[ $told == no ]]
}

# A Kubernetes takes a quarter of an hour to build: only for tests that use it. Where it cannot be had (there is no Go)
# the others run, and these say what they lack: hence the question marks.
if [[ ${1:-} == --tools ]]; then
  shift
  if runs kubernetes "$@"; then echo 'kubernetes? helm?'; fi
  if runs manifests "$@"; then echo 'kubectl?'; fi
  if runs peers "$@"; then echo 'fencing?'; fi
  # The library tests are those of the tests' own support, too.
  if runs faults "$@" || runs honesty "$@" || [[ " $* " == *" --lib "* ]]; then echo 'faults?'; fi
  exit
fi

# The image is looked at as the Dockerfile would make it; minutes the first time, seconds later.
if runs image "$@"; then
  if image=$(scripts/image-stages.sh); then
    export BELLWETHER_IMAGE=$image
  else
    echo "scripts/test.sh: going on without the image; the tests of it will fail" >&2
  fi
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
if [[ -t 1 ]]; then export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-always}; fi

code=0
# The sabotage feature lets tests take one protection away and see themselves fail (src/protections.rs).
# --no-fail-fast: the totals below are of all tests, not of those up to the first failing binary.
cargo test --workspace --locked --features sabotage --no-fail-fast "$@" 2>&1 | tee "$log" || code=${PIPESTATUS[0]}

# One line per test binary: "test result: ok. 12 passed; 0 failed; 0 ignored; …".
read -r passed failed < <(awk '
  /^test result: / {
    for (i = 2; i <= NF; i++) {
      if ($i == "passed;") passed += $(i - 1)
      if ($i == "failed;") failed += $(i - 1)
    }
  }
  END { print passed + 0, failed + 0 }' "$log")
echo
if [[ $code -ne 0 && $failed -eq 0 ]]; then
  echo "cargo test ended with exit code $code"
elif [[ $passed -eq 0 && $failed -eq 0 ]]; then
  echo "no test was run"
  code=1
fi
echo "$passed passed, $failed failed"
exit "$code"
