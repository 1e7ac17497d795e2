#!/usr/bin/env bash
# Runs every test of the workspace and ends with one line: "N passed, N failed".
# Arguments go to `cargo test`. The exit code is cargo's; that nothing was tested is a failure as well.
#
#   scripts/test.sh --tools ARGUMENT…    prints what these tests need of scripts/tools.sh beside protoc and etcd
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Kubernetes takes a quarter of an hour to build: only for tests that use it. That is all of them unless cargo is told
# which; of those, the ones whose names begin with kubernetes, and --tests and --all-targets, which are all again.
# Without them (no Go) the rest can run: hence the question marks.
tools() {
  local told=no
  while [[ $# -gt 0 && $1 != -- ]]; do
    case $1 in
      --test=kubernetes* | --tests | --all-targets) told=no && break ;;
      --test)
        if [[ ${2:-} == kubernetes* ]]; then told=no && break; fi
        told=yes
        ;;
      --test=* | --lib | --bin | --bin=* | --bins | --doc | --example | --example=* | --examples) told=yes ;;
    esac
    shift
  done
  if [[ $told == no ]]; then echo 'kubernetes? helm?'; fi
}
if [[ ${1:-} == --tools ]]; then
  tools "${@:2}"
  exit
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
