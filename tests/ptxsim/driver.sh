#!/usr/bin/env bash
# driver.sh PTXSIM   what the driver program does with programs that are none of CUDA's: exit codes, signals, messages.
set -uo pipefail
ptxsim=$1
failed=0
# expect CODE "TEXT ON STDERR" ARGS...
expect() {
  local code=$1 text=$2 log found
  shift 2
  log=$("$ptxsim" "$@" 2>&1 >/dev/null)
  found=$?
  ((found == code)) || { echo "ptxsim $*: expected exit code $code, found $found" >&2; failed=1; }
  [[ $log == *"$text"* ]] || { echo "ptxsim $*: expected on stderr '$text', found '$log'" >&2; failed=1; }
}
expect 0 "never called the CUDA runtime through libcudart.so.13; build it with nvcc -cudart shared" -- true
expect 7 "" -- sh -c 'exit 7'
expect 143 "was killed by signal 15" -- sh -c 'kill -TERM $$'
expect 0 "ptxsim: 0 findings" --check -- true
expect 2 "program is required" --check
expect 2 "there is no program 'no-such-program'" -- no-such-program
expect 2 "there is no program '/etc'" -- /etc
expect 2 "no GPU is called 'h1000'; there are: h100, h200, a100, a100-40gb, rtx4090" --gpu h1000 -- true
expect 2 "expected 'plain' or a seed, found 'random'" --schedule random -- true
expect 2 "--threads: expected a whole number from 1 to 1024, found '0'" --threads 0 -- true
expect 2 "ptxsim: not expected: --no-such-flag" --no-such-flag -- true
expect 2 "cannot write the report to /no/such/folder/r.json" --report=/no/such/folder/r.json -- true
expect 2 "cannot write the report to /" --report=/ -- true
# The program's own arguments are its own, also such as ptxsim has; and its environment is what ptxsim was asked for.
[[ $("$ptxsim" --gpu h200 --schedule 7 --threads 3 --check --report=r.json -- \
  sh -c 'echo "$PTXSIM_GPU $PTXSIM_SCHEDULE $PTXSIM_THREADS $PTXSIM_CHECK $PTXSIM_REPORT $*"' x --check -h 2>/dev/null) == \
  "h200 7 3 1 $PWD/r.json --check -h" ]] || { echo "the environment or the arguments are wrong" >&2; failed=1; }
# A signal to ptxsim is one to the program.
"$ptxsim" -- sh -c 'trap "exit 9" TERM; while :; do sleep 0.05; done' 2>/dev/null &
sleep 0.5
kill -TERM $!
wait $!
code=$?
((code == 9)) || { echo "SIGTERM was not passed on: exit code $code" >&2; failed=1; }
exit $failed
