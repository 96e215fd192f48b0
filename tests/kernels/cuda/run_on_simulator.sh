#!/usr/bin/env bash
# run_on_simulator.sh PTXSIM TEST_PROGRAM TEST_SOURCE [GPU]   the tests that one source file defines, with all checks on.
set -euo pipefail
filter=$(sed -nE 's/^(TEST|TEST_P|TEST_F|INSTANTIATE_TEST_SUITE_P)\(([A-Za-z0-9_]+), *([A-Za-z0-9_]+).*/\2 \3/p' "$3" |
  awk '{print $1 ".*:*/" $1 ".*:*/" $2 ".*"}' | sort -u | paste -sd:)
[[ -n $filter ]] || { echo "$3: no tests found"; exit 1; }
out=$("$1" --check ${4:+--gpu "$4"} -- "$2" --gtest_brief=1 --gtest_filter="$filter" 2>&1) || { echo "$out"; exit 1; }
echo "$out"
grep -q '^ptxsim: 0 findings$' <<<"$out"
grep -qE '\[  PASSED  \] [1-9][0-9]* tests?' <<<"$out" # not nothing
