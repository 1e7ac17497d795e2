#!/usr/bin/env bash
# Every check that runs nothing of ours. Called by `make lint`, which puts the tools on the PATH.
# All checks run, whatever the earlier ones found; the exit code is 1 if any failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

failed=()
check() {
  local name=$1
  shift
  printf '== %s\n' "$name"
  "$@" || failed+=("$name")
}

scripts=()
while IFS= read -r file; do
  if [[ -f $file && $(head -c 2 "$file") == '#!' ]]; then scripts+=("$file"); fi
done < <(git ls-files --cached --others --exclude-standard -- scripts .ci)

check "formatting" cargo fmt --all --check
check "clippy, with the switches tests use" \
  cargo clippy --workspace --all-targets --locked --features sabotage --quiet -- -D warnings
# What CONTRIBUTING.md says of plain `cargo test`: it builds, without the controls.
check "clippy, without those switches" cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
# Only for the product, not for its tests. The reasons stand in Cargo.toml.
check "clippy, as released, with the rules for the product" \
  cargo clippy --lib --bins --locked --quiet -- -D warnings \
  -D clippy::disallowed_methods -D clippy::wildcard_enum_match_arm -D clippy::unchecked_time_subtraction \
  -D clippy::print_stdout -D clippy::print_stderr
# Advisories are looked up in a database on the network: not part of lint, `cargo deny check advisories` does it.
check "licences, sources and banned crates" cargo-deny --log-level warn --locked check bans licenses sources
check "the core is pure" scripts/check-core-is-pure.sh
check "the purity check bites" scripts/check-core-is-pure.sh --self-test
check "shell scripts" shellcheck --severity=style "${scripts[@]}"
check "YAML" yamllint --strict .
check "charts, manifests, rules, dashboard, Dockerfile" scripts/lint-charts.sh
check "their checks bite" scripts/lint-charts.sh --self-test
check "spelling" typos --quiet

echo
if [[ ${#failed[@]} -gt 0 ]]; then
  printf 'lint failed: %s\n' "${failed[@]}"
  exit 1
fi
echo "lint passed"
