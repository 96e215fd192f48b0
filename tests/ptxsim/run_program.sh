#!/usr/bin/env bash
# run_program.sh PTXSIM SOURCE BINARY [ARGS]   runs a test program under `ptxsim --check` and compares its findings with
# the `// expect: finding "text"` lines of its source: each text must occur in the findings, there must be as many
# findings as such lines, and the exit code must be 1 with and 0 without. "LINE" in a text stands for the line's own
# number, "LINE+2" and "LINE-1" for its neighbours: findings name the right line.
set -uo pipefail
ptxsim=$1 source=$2 binary=$3
shift 3
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$ptxsim" --check -- "$binary" "$@" 2>"$log"
code=$?
cat "$log" >&2
mapfile -t expected < <(grep -n '// expect: finding "' "$source" |
  sed -E 's/^([0-9]+):.*expect: finding "(.*)"$/\1 \2/' |
  awk '{ n = $1; sub(/^[0-9]+ /, ""); while (match($0, /LINE([+-][0-9]+)?/)) { d = substr($0, RSTART + 4, RLENGTH - 4);
    $0 = substr($0, 1, RSTART - 1) (n + d) substr($0, RSTART + RLENGTH) } print }')
failed=0
findings=$(grep -E '^ptxsim: finding [0-9]+: ' "$log")
for text in "${expected[@]}"; do
  grep -qF -- "$text" <<<"$findings" || { echo "not found: $text" >&2; failed=1; }
done
last=$(tail -n 1 "$log")
[[ $last == "ptxsim: ${#expected[@]} findings" ]] ||
  { echo "expected ${#expected[@]} findings as the last line, found: $last" >&2; failed=1; }
want=$((${#expected[@]} > 0 ? 1 : 0))
((code == want)) || { echo "expected exit code $want, found $code" >&2; failed=1; }
exit $failed
