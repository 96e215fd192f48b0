#!/usr/bin/env bash
# tools/gpu/prove.sh [--dry-run] [--minutes M] [--prebuilt FILE|DIR]
#
# Everything that needs a GPU, unattended, the most valuable first: builds, runs the kernel tests and whole models on
# the device, times Ti, S and B beside PyTorch and every kernel beside cuBLASLt, cuDNN and PyTorch's attention, puts
# ptxsim's counters beside Nsight Compute's, and lets compute-sanitizer look. It needs no network where a build is
# brought along, and names what is missing. The report grows step by step, so that what was reached is kept if the
# machine goes away: $OUT, else bench/gpu/ (a rehearsal: build/rehearsal/), gets report-DATE.md, log.txt, clocks.csv and
# the figures as JSON lines.
#
#   --minutes M       for all of it (default 8.5); what no longer fits is left out and said
#   --prebuilt WHAT   what tools/gpu/pack.sh made (default: build/gpu.tar.xz where that is), or a build folder
#   --dry-run         the same steps on ptxsim, at tiny sizes, without what needs a real GPU
# Exit code: 0 all that was reached is well, 1 something failed (listed at the end of the report), 2 it could not begin,
# 128 and more: a signal ended it.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
root=$PWD

dry=false minutes=8.5 prebuilt='' python=${PYTHON:-python3}
while (($#)); do
  case $1 in
    --dry-run) dry=true ;;
    --minutes | --prebuilt)
      (($# > 1)) || { echo "prove.sh: $1 wants a value; --help tells which" >&2; exit 2; }
      if [[ $1 == --minutes ]]; then minutes=$2; else prebuilt=$2; fi
      shift
      ;;
    --help) sed -nE '2,18s/^# ?//p' "$0"; exit 0 ;;
    *) echo "prove.sh: unknown flag $1; --help tells them" >&2; exit 2 ;;
  esac
  shift
done
[[ $minutes =~ ^[0-9]+([.][0-9]+)?$ ]] || { echo "prove.sh: --minutes: expected a number, found $minutes" >&2; exit 2; }
[[ -z $prebuilt || -f $prebuilt || -x $prebuilt/bin/cpvt ]] ||
  { echo "prove.sh: --prebuilt: neither a file nor a build folder with bin/cpvt: $prebuilt" >&2; exit 2; }
limit=$(awk "BEGIN { print int($minutes * 60) }")
out=${OUT:-$($dry && echo build/rehearsal || echo bench/gpu)}
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
report=$out/report-$(date +%Y-%m-%d-%H%M).md
log=$out/log.txt
figures=$out/figures.jsonl
scratch=$(mktemp -d)
for file in "$log" "$figures" "$report"; do : >"$file"; done
rm -f "$out"/{ptxsim.json,ncu.csv,clocks.csv} # of an earlier run
PATH=$PATH:/usr/local/cuda/bin

exec 3>&1 # the end may come while a command's output is on its way elsewhere
trap '' PIPE # who reads the output may go; the report goes on
say() {
  printf '%s\n' "$@" >>"$report"
  printf '%s\n' "$@" >&3 2>/dev/null || true
}
left() { echo $((limit - SECONDS)); }
# In files, for they are told by whoever outlives the steps.
failures=$scratch/failures skipped=$scratch/skipped
touch "$failures" "$skipped"
note() { printf '%s\n' "${2//$'\n'/ }" >>"$1"; }
fail() { note "$failures" "$1"; say "" "**FAILED: $1**"; }
skip() { note "$skipped" "$1"; say "" "*Left out: $1*"; }

# end_tree PID: ends it, so that it starts nothing more, and what it has started, which may be waiting for a GPU.
end_tree() {
  local child children
  children=$(cat /proc/"$1"/task/*/children 2>/dev/null)
  kill -TERM "$1" 2>/dev/null
  for child in $children; do end_tree "$child"; done
}

# The GPU's clocks, power and temperature all along, every two seconds: what figures were taken at.
clocks=''
begin_clocks() {
  timeout "$limit" nvidia-smi --format=csv,noheader,nounits -l 2 \
    --query-gpu=timestamp,clocks.sm,clocks.mem,power.draw,temperature.gpu,utilization.gpu >"$out/clocks.csv" 2>>"$log" &
  clocks=$!
}
end_clocks() {
  [[ -n $clocks ]] || return 0
  kill "$clocks" 2>/dev/null
  say "$(awk -F', *' '$6 >= 50 {
      if (!n++) { low = $2; cool = $5 }
      if ($2 < low) low = $2
      if ($2 > high) high = $2
      if ($5 < cool) cool = $5
      if ($5 > heat) heat = $5
      if ($4 > power) power = $4
      sum += $4
    }
    END {
      printf "* GPU at half load or more in %d of %d samples, clocks.csv", n, NR
      if (!n) exit
      printf ": SM clock %d to %d MHz, %.0f W on average and %.0f W at most, %d to %d degrees", low, high, sum / n,
        power, cool, heat
    }' "$out/clocks.csv")"
}

ended=false
finish() {
  local code=$? bad=false line
  $ended && return
  ended=true
  [[ ! -s $failures ]] || bad=true
  say "" "## The end" "" "After $SECONDS of $limit seconds."
  end_clocks
  ((code < 128)) || say "* CUT OFF by signal $((code - 128))"
  ((code == 0 || code >= 128)) || $bad || say "* a mistake in this script: exit code $code"
  while read -r line; do say "* left out: $line"; done <"$skipped"
  while read -r line; do say "* FAILED: $line"; done <"$failures"
  $bad || say "* nothing failed$( ((code == 0)) || echo " until then")"
  rm -rf "$scratch"
  echo "report: $report"
  ((code == 0)) && $bad && code=1
  trap - EXIT
  exit "$code"
}

# title NAME SECONDS: begins a section; false where too little time is left. What the section may take is then $budget,
# and over at $until.
title() {
  local now wanted=$2
  now=$(left)
  $dry && wanted=$((wanted * 4)) # the simulator is slow
  if ((now < 15)); then
    note "$skipped" "$1: no time left"
    return 1
  fi
  budget=$((wanted < now - 5 ? wanted : now - 5))
  until=$((SECONDS + budget))
  say "" "## $1" ""
  echo "==== $1, at $SECONDS s, for $budget s" >>"$log"
}
# remaining: the section's seconds that are left, at least one.
remaining() { echo $((until - SECONDS > 1 ? until - SECONDS : 1)); }
# within SECONDS COMMAND...: killed when they are over; errors go to the log.
within() {
  local seconds=$1
  shift
  timeout -k 3 "$seconds" "$@" 2>>"$log"
}
have() { command -v "$1" >/dev/null; }
version() { have "$1" && timeout 20 "$@" 2>/dev/null | grep -iE 'version|release' | tail -1; }
smi() { timeout 20 nvidia-smi "$@" 2>>"$log"; }

# ---------------------------------------------------------------------------------------------------------------------
the_machine() {
  say "# cpvt on a GPU, $(date '+%Y-%m-%d %H:%M %Z')"
  $dry && say "" "A rehearsal on the simulator: its times mean nothing."
  title "The machine" 30 || { fail "$limit seconds are too few"; exit 2; }
  local asked=name,memory.total,driver_version,clocks.sm,clocks.max.sm,power.limit changed
  sources=$(tools/gpu/pack.sh --stamp)
  changed=$([[ -z $(git status --porcelain 2>/dev/null) ]] || echo ', changed')
  {
    echo "| | |"
    echo "|---|---|"
    echo "| sources | $sources; commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)$changed |"
    if ! $dry && have nvidia-smi; then
      echo "| GPU ($asked; idle) | $(smi --query-gpu="$asked" --format=csv,noheader | head -1) |"
    else
      echo "| GPU | none: nvidia-smi was not found, or this is a rehearsal |"
    fi
    echo "| processor | $(nproc) x $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1) |"
    echo "| system | $(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release), $(uname -r) |"
    echo "| nvcc | $(version nvcc --version || echo missing) |"
    echo "| Nsight Compute | $(version ncu --version || echo missing) |"
    echo "| compute-sanitizer | $(version compute-sanitizer --version || echo missing) |"
  } | tee -a "$report"
  torch=false
  if within 90 "$python" -c 'import torch
cudnn = torch.backends.cudnn.version()
print("| PyTorch |", torch.__version__, "with CUDA", torch.version.cuda, "and cuDNN", cudnn, "|")' \
    >"$scratch/torch"; then
    torch=true
    tee -a "$report" <"$scratch/torch"
  else
    say "| PyTorch | missing: $python did not import torch within 90 s |"
    skip "goldens by cpvt run, and all comparisons with PyTorch: $python did not import torch within 90 s"
  fi
  if ! $dry && ! smi >/dev/null; then
    fail "no GPU: nvidia-smi finds none"
    exit 2
  fi
  # The wheels that PyTorch came with.
  wheels=$("$python" -c 'import importlib.util, pathlib
print(pathlib.Path(importlib.util.find_spec("torch").origin).parents[1] / "nvidia")' 2>/dev/null || echo /nonexistent)
}

unpack() { # what tools/gpu/pack.sh made
  local code='import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' # where tar may have no xz
  local built_in
  build=$scratch/prebuilt
  mkdir "$build"
  if ! "$python" -c "$code" "$prebuilt" "$build" 2>>"$log" && ! tar -C "$build" -xf "$prebuilt" 2>>"$log"; then
    fail "$prebuilt cannot be unpacked"
    build=''
    return
  fi
  if [[ $(cat "$build/stamp") == "$sources" ]]; then
    say "Unpacked from $prebuilt, made of these very sources."
  else
    fail "$prebuilt was made of other sources ($(cat "$build/stamp"))"
  fi
  # Tests look for their data where they were built.
  built_in=$(cat "$build/source")
  [[ -e $built_in ]] || { mkdir -p "$(dirname "$built_in")" && ln -s "$root" "$built_in"; } 2>>"$log" ||
    fail "tests/data cannot be shown to the tests at $built_in, where they were built"
}

build_here() {
  local target targets=() missing
  build=$root/build/gpu
  # cublasLt.h and cudnn.h may be in PyTorch's wheels alone: looked for there last.
  configure() {
    within 60 env INCLUDE="$wheels/cu13/include:$wheels/cudnn/include" \
      cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release >>"$log"
  }
  configure || { within 150 tools/packages.sh </dev/null >>"$log" && configure; }
  for target in cpvt cpvt_cuda bench_gpu_kernels test_engine_cuda test_kernels_cuda ptxsim; do
    grep -q "build $target: phony" "$build/build.ninja" 2>/dev/null && targets+=("$target")
  done
  # What one target lacks need not stop the others.
  if ((${#targets[@]})) && within "$(remaining)" cmake --build "$build" --target "${targets[@]}" -- -k 0 >>"$log"; then
    built_here=true
    say "Built ${targets[*]} here; $SECONDS s have gone by."
    grep -E '^-- .* is skipped: ' "$log" | tee -a "$report"
    return
  fi
  missing=$(sed -n 's/^installing: //p' "$log" | tail -1)
  fail "the build, see log.txt${missing:+; of its packages these were missing: $missing}. Where tools/packages.sh \
cannot install them, or time is short: run 'tools/build.sh release all && tools/gpu/pack.sh' on a machine that can, \
and bring build/gpu.tar.xz to the same place here"
}

build() {
  local programs=(cpvt bench_gpu_kernels test_kernels_cuda test_engine_cuda ptxsim) program known library host folder
  title "Build" 420 || { fail "$limit seconds are too few"; exit 2; }
  [[ -n $prebuilt || ! -f build/gpu.tar.xz ]] || prebuilt=build/gpu.tar.xz
  build='' built_here=false
  if [[ -d $prebuilt ]]; then
    build=$(cd "$prebuilt" && pwd)
    say "Taken from $prebuilt as it is."
  elif [[ -n $prebuilt ]]; then
    unpack
  fi
  [[ -n $build ]] || build_here
  bin=$build/bin
  # With none of them, the machine need not be kept waiting.
  [[ -n $(cd "$bin" 2>/dev/null && ls "${programs[@]}" 2>/dev/null) ]] || exit 2
  for program in "${programs[@]}"; do
    [[ -x $bin/$program ]] || fail "$program is not there"
  done
  # cuBLASLt and cuDNN, from PyTorch's wheels too.
  libraries=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/usr/local/cuda/lib64
  for folder in "$wheels"/*/lib; do
    [[ ! -e $folder/libcublasLt.so.13 && ! -e $folder/libcudnn.so.9 ]] || libraries+=:$folder
  done
  # Of the libraries that the prebuilt programs brought, only what this machine lacks, and after PyTorch's own.
  host=$build/lib/host
  if [[ -d $host && $build == "$scratch"* ]]; then
    known=$(ldconfig -p 2>/dev/null)
    for library in "$host"/*; do
      if [[ $known == *$'\t'"${library##*/} "* ]]; then rm "$library"; fi
    done
    libraries+=:$host
    export LD_LIBRARY_PATH=$libraries
  fi
  if [[ -x $bin/cpvt ]] && ! timeout 20 "$bin/cpvt" --version >"$scratch/version" 2>&1; then
    fail "cpvt does not start: $(head -1 "$scratch/version")"
  fi
  device=cuda
  on_gpu=() # in front of a CUDA program
  if $dry; then
    device=sim
    on_gpu=("$bin/ptxsim" --)
  fi
}

# ---------------------------------------------------------------------------------------------------------------------
# The tests of one operator: as tests/kernels/cuda/run_on_simulator.sh has them.
filter_of() {
  sed -nE 's/^(TEST|TEST_P|TEST_F|INSTANTIATE_TEST_SUITE_P)\(([A-Za-z0-9_]+), *([A-Za-z0-9_]+).*/\2 \3/p' \
    "tests/kernels/cuda/$1_test.cc" | awk '{print $1 ".*:*/" $1 ".*:*/" $2 ".*"}' | sort -u | paste -sd:
}
operators=$(cd tests/kernels/cuda && ls ./*_test.cc | sed 's#^./##; s#_test.cc$##')
# run_tests NAME SECONDS PROGRAM FILTER COMMAND...: leaves NAME.out and, last in it, the exit code.
run_tests() {
  local name=$1 seconds=$2 program=$3 filter=$4
  shift 4
  {
    timeout -k 3 "$seconds" env LD_LIBRARY_PATH="$libraries" "$@" "$bin/$program" --gtest_filter="$filter"
    echo "exit code $?"
  } >"$scratch/$name.out" 2>&1
}
passed_in() { grep -c '^\[       OK' "$1"; }
code_in() { sed -n 's/^exit code //p' "$1"; }

kernel_tests() {
  [[ -x $bin/test_kernels_cuda ]] && title "Kernel tests on the device" 150 || return 0
  local operator filter file code passed line bad=() jobs=4
  $dry && jobs=1
  say "| operator | passed | exit code |" "|---|---|---|"
  for operator in $operators; do
    filter=$(filter_of "$operator")
    if $dry; then
      [[ $operator =~ ^(layernorm|elementwise)$ ]] || continue
      filter='*Elementwise.GeluOfEveryWidth/*:*LayerNorm.ConstantRowsGiveBeta/*'
      [[ $operator == layernorm ]] && filter='*LayerNorm.ConstantRowsGiveBeta/*'
    fi
    while (($(jobs -rp | wc -l) >= jobs)); do wait -n; done
    run_tests "test-$operator" "$(remaining)" test_kernels_cuda "$filter" "${on_gpu[@]}" &
  done
  wait
  for operator in $operators; do
    file=$scratch/test-$operator.out
    [[ -f $file ]] || continue
    code=$(code_in "$file") passed=$(passed_in "$file")
    say "| $operator | $passed | $code |"
    if [[ $code != 0 || $passed == 0 ]]; then
      bad+=("kernel tests of $operator: exit code $code after $passed tests")
      grep -E -A12 'Failure|FAILED|rror' "$file" | head -60 >>"$log"
    fi
  done
  for line in "${bad[@]}"; do fail "$line"; done # after the table
}

engine_tests() {
  [[ -x $bin/test_engine_cuda ]] && title "Whole networks on the device (test_engine_cuda)" 60 || return 0
  local filter='*' file=$scratch/test-engine.out code passed
  $dry && filter='*ReplaysPicturesThatDiffer/fp16'
  run_tests test-engine "$budget" test_engine_cuda "$filter" "${on_gpu[@]}"
  code=$(code_in "$file") passed=$(passed_in "$file")
  cat "$file" >>"$log"
  say "$passed tests passed, exit code $code."
  grep 'worst error' "$file" | tee -a "$report"
  [[ $code == 0 && $passed != 0 ]] || fail "test_engine_cuda: exit code $code after $passed tests"
}

goldens() {
  [[ -x $bin/cpvt ]] && $torch && title "Goldens of tests/data/models through cpvt run --device $device" 70 || return 0
  local some=()
  $dry && some=(--models 'gap,token' --dtypes 'fp32,fp16' --jobs 1)
  within $((budget + 3)) "$python" tools/gpu/check_goldens.py --cpvt "$bin/cpvt" --device "$device" \
    --deadline "$budget" "${some[@]}" | tee -a "$report"
  ((PIPESTATUS[0] == 0)) || fail "goldens"
}

# ---------------------------------------------------------------------------------------------------------------------
# kernels NAME FLAGS...: bench_gpu_kernels; NAME.jsonl, NAME.err. Under ptxsim, its libraries must come first.
kernels() {
  local name=$1
  shift
  timeout -k 3 $((budget + 5)) env LD_LIBRARY_PATH="$libraries" "${on_gpu[@]}" "$bin/bench_gpu_kernels" \
    --json --deadline "$budget" "$@" 2>"$scratch/$name.err" | tee -a "$figures" >"$scratch/$name.jsonl"
  local code=${PIPESTATUS[0]}
  cat "$scratch/$name.err" >>"$log"
  return "$code"
}
# reached NAME: of how many networks, dtypes and batches there are lines.
reached() {
  sed -nE 's/.*"model":"(\w+)","dtype":"(\w+)","batch":([0-9]+),.*/\1 \2 \3/p' "$scratch/$1.jsonl" | sort -u | wc -l
}

# First: the comparison with PyTorch reads them.
forward_passes() {
  [[ -x $bin/bench_gpu_kernels ]] && title "Forward passes on the device" 45 || return 0
  local code wanted=81 # three networks, three dtypes, nine batches
  local passes=(--batches '1,2,4,8,16,32,64,128,256' --milliseconds 60)
  $dry && passes=("${tiny[@]}") wanted=1
  kernels forward --only forward --no-libraries "${passes[@]}"
  code=$?
  say "$(reached forward) of $wanted forward passes timed, exit code $code; figures in the next table."
  ((code == 0)) || fail "bench_gpu_kernels --only forward: exit code $code: $(tail -1 "$scratch/forward.err")"
  ! grep -q '^the deadline' "$scratch/forward.err" ||
    skip "$((wanted - $(reached forward))) of $wanted forward passes: the time was over"
}

compare() { # WHAT FLAGS...
  local what=$1 seconds=$((until - SECONDS)) code line
  shift
  if ((seconds < 10)); then
    skip "compare_pytorch.py $what $*: no time left"
    return
  fi
  within $((seconds + 4)) "$python" tools/gpu/compare_pytorch.py "$what" --cpvt "$bin/cpvt" --device "$device" \
    --json "$figures" --deadline $((seconds - 2)) "$@" "${torch_tiny[@]}" | tee "$scratch/compare.out" |
    tee -a "$report"
  code=${PIPESTATUS[0]}
  line=$(grep -E '^[0-9]+ rows left out' "$scratch/compare.out") && note "$skipped" "compare_pytorch.py $what: $line"
  case $code in
    0) ;;
    124 | 137) skip "compare_pytorch.py $what $*: the rows that were not printed when its time was over" ;;
    *) fail "compare_pytorch.py $what: exit code $code" ;;
  esac
}

beside_pytorch() {
  [[ -x $bin/cpvt ]] && $torch && title "Whole models beside PyTorch" 130 || return 0
  say "CPVT-GAP, $($dry && echo 32 || echo 224) px. Host: from fp32 pixels in the host's ordinary (not pinned)"
  say "memory to logits there, on both sides. Device: one pass by itself without these copies; cpvt as a CUDA graph,"
  say "PyTorch eagerly and as a CUDA graph. Medians in ms; ratios above 1: for cpvt."
  say ""
  compare models --dtypes fp16 --batches 1,8,32,64,128,256 --seconds 0.15
  if ! $dry; then
    say ""
    compare models --dtypes bf16,fp32 --batches 1,64,256 --seconds 0.15
  fi
}

beside_libraries() {
  [[ -x $bin/bench_gpu_kernels ]] && title "Every kernel beside cuBLASLt and cuDNN" 60 || return 0
  local kinds=patch_embed,qkv,attention,proj,fc1,fc2,peg,layernorm,pool,head
  local problems=(--batches '1,8,64,256') code wanted=36 # three networks, three dtypes
  $dry && problems=("${tiny[@]}" --no-libraries) wanted=1
  say "Microseconds, the median of CUDA graphs of 20 launches; ratio: library / cpvt, above 1 is for cpvt."
  say "GB/s counts every operand once."
  say ""
  kernels problems --only "$kinds" "${problems[@]}"
  code=$?
  say '```'
  "$python" - "$scratch/problems.jsonl" <<'EOF' 2>>"$log" | tee -a "$report"
import json, sys
print(f"{'model':6}{'dtype':6}{'batch':>5}  {'kernel':17}{'us':>9}{'spread':>8}{'TFLOP/s':>9}{'GB/s':>7}"
      f"{'library':>9}{'ratio':>7}  by")
for line in open(sys.argv[1]):
    if not line.endswith("}\n"):
        continue
    r = json.loads(line)
    print(f"{r['model']:6}{r['dtype']:6}{r['batch']:5}  {r['kernel']:17}{r['us']:9.2f}{100 * r['spread']:7.1f}%"
          f"{r['gflop_per_second'] / 1e3:9.1f}{r['gb_per_second']:7.0f}{r.get('library_us', 0) or '-':>9}"
          f"{r.get('ratio', 0) or '-':>7}  {r.get('library', '')} {r.get('note', '')}")
EOF
  ((PIPESTATUS[0] == 0)) || say "$python could make no table of them: the lines are in figures.jsonl"
  say '```'
  say "$(head -1 "$scratch/problems.err")"
  ((code == 0)) ||
    fail "bench_gpu_kernels: exit code $code: $(grep -v '^the deadline' "$scratch/problems.err" | tail -1)"
  ! grep -q '^the deadline' "$scratch/problems.err" ||
    skip "$((wanted - $(reached problems))) of the table's $wanted networks, dtypes and batches, and rows of the last \
in it: $(grep '^the deadline' "$scratch/problems.err")"
  ! grep -q 'RESULTS DIFFER' "$scratch/problems.jsonl" || fail "a kernel and its library do not agree"
}

operators_of_pytorch() {
  $torch && title "Single operators of PyTorch" 30 || return 0
  compare kernels --dtypes fp16,bf16,fp32 --batches 1,8,64,256 --seconds 0.05
}

compiled() {
  if $dry; then skip "torch.compile: needs a GPU"; return; fi
  $torch && title "Whole models beside torch.compile(mode=\"max-autotune\")" 120 || return 0
  # Compiling takes most of a minute each: what is wanted most comes first.
  compare compiled --dtypes fp16 --models S --batches 64,1
  compare compiled --dtypes fp16 --models B,Ti --batches 256,1
}

# ---------------------------------------------------------------------------------------------------------------------
counters() {
  [[ -x $bin/ptxsim && -x $bin/bench_gpu_kernels ]] && title "ptxsim's counters beside Nsight Compute's" 50 || return 0
  local once=(--once --models S --dtypes fp16 --batches 8 --only 'qkv,attention,fc1,fc2,peg,layernorm')
  local gpu=h100 measured=()
  $dry && once=(--once --models Ti --dtypes fp16 --batches 1 --size 32 --only 'attention,peg,layernorm')
  ! $dry && smi --query-gpu=name --format=csv,noheader | grep -q H200 && gpu=h200
  within $((budget / 2)) "$bin/ptxsim" --gpu "$gpu" --report="$out/ptxsim.json" -- \
    "$bin/bench_gpu_kernels" "${once[@]}" >>"$log" || fail "ptxsim --report: exit code $?"
  if $dry || ! have ncu; then
    skip "Nsight Compute: $($dry && echo 'needs a GPU' || echo 'not on this machine')"
  else
    measure() { # all|core
      within $(($(remaining) / 2)) env LD_LIBRARY_PATH="$libraries" ncu --csv --page raw --print-units base \
        --clock-control none --metrics "$("$python" tools/gpu/compare_counters.py --metrics "$1")" \
        "$bin/bench_gpu_kernels" "${once[@]}" >"$out/ncu.csv" && grep -q '^"[0-9]' "$out/ncu.csv"
    }
    # An ncu that does not know one of the names measures nothing.
    if measure all || measure core; then
      measured=("$out/ncu.csv")
    else
      fail "ncu: $(grep -m1 -E '==(ERROR|WARNING)==' "$out/ncu.csv" || echo 'see log.txt')"
      head -20 "$out/ncu.csv" >>"$log"
    fi
  fi
  if [[ -s $out/ptxsim.json ]]; then
    say ""
    "$python" tools/gpu/compare_counters.py "$out/ptxsim.json" "${measured[@]}" 2>>"$log" | tee -a "$report"
    ((PIPESTATUS[0] == 0)) || fail "compare_counters.py"
  fi
}

sanitize() { # TOOL: one operator after the other, then networks, each for its share of the time that is left
  local operator todo flags=()
  todo=$(wc -w <<<"$operators")
  [[ $1 == memcheck ]] && flags=(--report-api-errors no) # tests ask for launches that are refused
  local command=(compute-sanitizer --tool "$1" --error-exitcode 99 --print-limit 5 "${flags[@]}")
  for operator in $operators; do
    run_tests "$1-$operator" $(($(remaining) / (todo + 1) + 1)) test_kernels_cuda "$(filter_of "$operator")" \
      "${command[@]}"
    todo=$((todo - 1))
  done
  [[ ! -x $bin/test_engine_cuda ]] ||
    run_tests "$1-engine" "$(remaining)" test_engine_cuda '*ReplaysPicturesThatDiffer*' "${command[@]}"
}

sanitizers() {
  if $dry || ! have compute-sanitizer; then
    skip "compute-sanitizer: $($dry && echo 'needs a GPU' || echo 'not on this machine'); ptxsim --check asks the same"
    return
  fi
  [[ -x $bin/test_kernels_cuda ]] && title "compute-sanitizer over the tests" 90 || return 0
  local tool tools=(memcheck racecheck initcheck synccheck) operator row file code errors passed line bad=() cut=()
  local words='Warning: |Invalid|Uninitialized|Error: |Race|Barrier|Misaligned|Program hit|Fatal|Internal'
  say "The four tools side by side, for $budget s in all: tests that passed, errors and warnings."
  say "" "| operator | memcheck | racecheck | initcheck | synccheck |" "|---|---|---|---|---|"
  for tool in "${tools[@]}"; do sanitize "$tool" & done
  wait
  for operator in $operators engine; do
    row="| $operator"
    for tool in "${tools[@]}"; do
      file=$scratch/$tool-$operator.out
      row+=' | '
      [[ -f $file ]] || { row+=-; continue; }
      code=$(code_in "$file") passed=$(passed_in "$file")
      # What the time's end does to the program is not the program's error.
      errors=$(grep -E "^=+ +($words)" "$file" | grep -vc "process didn't terminate successfully")
      row+="$passed tests, $errors errors"
      case $code in
        0) ;;
        124 | 137) row+=', cut off' cut+=("$tool of $operator after $passed tests") ;;
        *) row+=", exit code $code" ;;
      esac
      # No test: nothing was looked at, whatever the reason.
      [[ $errors == 0 && $passed != 0 && $code =~ ^(0|124|137)$ ]] ||
        bad+=("$tool of $operator: $errors errors, $passed tests passed, exit code $code")
      [[ $code == 0 && $errors == 0 ]] || grep -A12 '^=====' "$file" | head -80 >>"$log"
    done
    say "$row |"
  done
  for line in "${bad[@]}"; do fail "$line"; done
  ((${#cut[@]} == 0)) || skip "what compute-sanitizer had not seen when its time was over:$(printf ' %s;' "${cut[@]}")"
}

# What needs no GPU comes last, and only where the project could be built.
the_rest() {
  if ! $built_here; then skip "the rest of the suite: it needs no GPU, and was not built here"; return; fi
  ! $dry && title "The rest of the suite" 300 || return 0
  if ! within "$(remaining)" cmake --build "$build" >>"$log"; then
    skip "the rest of the suite: it was not built in time, or not at all: see log.txt"
    return
  fi
  within "$(remaining)" ctest --test-dir "$build" -j "$(nproc)" >"$scratch/ctest.out"
  local code=$?
  cat "$scratch/ctest.out" >>"$log"
  say "$(grep -E 'tests passed|tests failed' "$scratch/ctest.out" || echo 'cut off: see log.txt')"
  case $code in
    0) ;;
    124 | 137) skip "the rest of the suite: cut off after $(grep -c ' Passed ' "$scratch/ctest.out") tests" ;;
    *) fail "ctest: exit code $code" ;;
  esac
}

# ---------------------------------------------------------------------------------------------------------------------
tiny=(--size 32 --depth 1 --launches 1 --milliseconds 0.01 --models Ti --batches 1 --dtypes fp32)
torch_tiny=()
$dry && torch_tiny=(--size 32 --depth 1 --seconds 0.01 --repetitions 1 --models Ti --batches 1 --dtypes fp32)
steps() {
  the_machine
  build
  kernel_tests
  engine_tests
  goldens
  forward_passes
  beside_pytorch
  beside_libraries
  operators_of_pytorch
  counters
  sanitizers
  compiled
  the_rest
  exit 0
}

trap finish EXIT
if ! $dry && have nvidia-smi; then begin_clocks; fi
# In a process of their own, so that a signal need not wait for what is under way.
steps &
child=$!
trap 'end_tree "$child"; exit 143' TERM
trap 'end_tree "$child"; exit 130' INT
trap 'end_tree "$child"; exit 129' HUP
wait "$child"
exit $?
