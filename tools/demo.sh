#!/usr/bin/env bash
# tools/demo.sh   installs what is missing, builds, and lets the demo's CPVT-GAP name the bundled pictures.
# The labels are all that goes to stdout.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ -t 2 ]]; then
  tools/build.sh release >&2
else
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  tools/build.sh release >"$log" 2>&1 || { cat "$log" >&2; exit 2; }
fi
build/release/bin/cpvt classify weights/demo/cpvt-gap weights/demo/images/*.png --topk 1 "$@"
