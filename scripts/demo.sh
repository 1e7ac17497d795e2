#!/usr/bin/env bash
# Builds the sidecar and the demo and runs the demo in place of this shell, so that Ctrl-C and signals reach it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Without the sabotage feature of the tests: what is shown is what is released.
cargo build --locked --bin bellwether --example demo
exec target/debug/examples/demo "$@"
