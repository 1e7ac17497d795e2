#!/usr/bin/env bash
# The alerts' rules and their tests, by promtool (Debian package prometheus; `PROMTOOL` or on the PATH).
#
#   scripts/check-rules.sh               check the rules and run their tests
#   scripts/check-rules.sh --self-test   spoil one alert at a time and see that its tests fail
#   scripts/check-rules.sh --rendered    run the tests on the PrometheusRule on stdin, as the chart makes it for the tests' election:
#     helm template web charts/bellwether --namespace shop --kube-version 1.36.0 \
#       --set fullnameOverride=web,metrics.prometheusRule.enabled=true \
#       --show-only templates/monitoring-prometheusrule.yaml | scripts/check-rules.sh --rendered
#
# The spoiled ones: an alert that never fires; one that does not wait (its `for:` is gone); one that waits for 55 minutes; one
# that takes all elections of a namespace for one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly rules=charts/bellwether/rules/bellwether.yaml
readonly tests=charts/bellwether/rules/tests

die() {
  printf 'scripts/check-rules.sh: %s\n' "$*" >&2
  exit 1
}

find_promtool() {
  promtool=${PROMTOOL:-$(type -P promtool || true)}
  [[ -n $promtool ]] || die "no promtool: install it, or name it in PROMTOOL (scripts/tools.sh with promtool -- …)"
}

# Runs quietly; what promtool said is printed when it fails.
check_rules() {
  local said
  said=$("$promtool" check rules "$rules" 2>&1) || die "$said"
  said=$("$promtool" test rules "$tests"/*.yaml 2>&1) || die "$said"
}

# A PrometheusRule has the groups below `spec:`, two columns in.
check_rendered() {
  local folder said
  folder=$(scratch)
  sed -n '/^spec:$/,$ s/^  //p' >"$folder/${rules##*/}"
  [[ -s $folder/${rules##*/} ]] || die "no PrometheusRule on stdin"
  said=$("$promtool" test rules "$folder"/tests/*.yaml 2>&1) || die "$said"
}

# A folder that goes with this script, with the tests in it: they name the rules by a relative path.
scratch() {
  cp -r "$tests" "$scratch_folder/tests"
  printf '%s' "$scratch_folder"
}

# alerts: the names of all.
alerts() { sed -n 's/^      - alert: //p' "$1"; }

# spoil HOW ALERT: the rules on stdin with that alert spoiled.
spoil() {
  awk -v how="$1" -v alert="$2" '
    /^      - alert: / { inside = ($3 == alert) }
    inside && how == "never" && /^        expr: \|/ { print "        expr: vector(0) > 1"; skipping = 1; next }
    skipping && /^          / { next }
    { skipping = 0 }
    inside && how == "hasty" && /^        for: / { next }
    inside && how == "patient" && /^        for: / { sub(/[0-9]+m/, "55m") }
    inside && how == "blind" { gsub(/\(namespace, election/, "(namespace") }
    { print }
  '
}

self_test() {
  local folder how alert own tried=0 missed=()
  folder=$(scratch)
  for alert in $(alerts "$rules"); do
    # All tests would find it, too; the ones that name the alert must.
    mapfile -t own < <(grep -l "$alert" "$folder"/tests/*.yaml)
    [[ ${#own[@]} -gt 0 ]] || die "$alert: no test names it"
    for how in never hasty patient blind; do
      spoil "$how" "$alert" <"$rules" >"$folder/${rules##*/}"
      if cmp -s "$rules" "$folder/${rules##*/}"; then continue; fi
      tried=$((tried + 1))
      "$promtool" check rules "$folder/${rules##*/}" >/dev/null 2>&1 || die "$alert, $how: promtool cannot read it"
      if "$promtool" test rules "${own[@]}" >/dev/null 2>&1; then missed+=("$alert, $how"); fi
    done
  done
  [[ $tried -ge $(alerts "$rules" | wc -l) ]] || die "the self-test spoiled only $tried rules"
  if [[ ${#missed[@]} -gt 0 ]]; then
    printf 'the tests do not miss: %s\n' "${missed[@]}" >&2
    exit 1
  fi
  printf '%d spoiled rules, all found\n' "$tried"
}

find_promtool
scratch_folder=$(mktemp -d)
trap 'rm -rf "$scratch_folder"' EXIT
case ${1:-} in
  '') check_rules ;;
  --self-test) self_test ;;
  --rendered) check_rendered ;;
  *) die "usage: scripts/check-rules.sh [--self-test | --rendered]" ;;
esac
