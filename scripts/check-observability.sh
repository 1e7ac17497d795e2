#!/usr/bin/env bash
# Metrics, alerts, dashboard and pages say the same: scripts/check_observability.py tells how.
#
#   scripts/check-observability.sh                    against the source; no network, nothing is run
#   scripts/check-observability.sh --scrape FILE|-    against what a sidecar answered on /metrics
#   scripts/check-observability.sh --self-test        make one fault at a time and see that it is found
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONDONTWRITEBYTECODE=1 exec python3 scripts/check_observability.py "$@"
