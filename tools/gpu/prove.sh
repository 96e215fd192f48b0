#!/usr/bin/env bash
# tools/gpu/prove.sh [--dry-run] [--minutes M] [--prebuilt FILE|DIR]
#
# Everything that needs a GPU, unattended, the most valuable first: builds, runs the kernel tests and whole models on
# the device, times Ti, S and B beside PyTorch and every kernel beside cuBLASLt, cuDNN and PyTorch's attention, lets
# compute-sanitizer look, and puts ptxsim's counters beside Nsight Compute's. It needs no network, and names what is
# missing. The report grows step by step, so that what was reached is kept if the
# machine goes away: $OUT, else bench/gpu/ (a rehearsal: build/rehearsal/), gets report-DATE.md, log.txt, and the figures
# as JSON lines.
#
#   --minutes M       for all of it (default 8.5); a step that no longer fits is left out and said
#   --prebuilt WHAT   what tools/gpu/pack.sh made (default: build/gpu.tar.xz where that is), or a build folder
#   --dry-run         the same steps on ptxsim, at tiny sizes, without what needs a real GPU
# Exit code: 0 all that was reached is well, 1 something failed (listed at the end of the report), 2 it could not begin.
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
    --help) sed -nE '2,17s/^# ?//p' "$0"; exit 0 ;;
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
note_failure() { printf '%s\n' "$1" | tr '\n' ' ' | sed 's/ *$/\n/' >>"$failures"; }
fail() { note_failure "$1"; say "" "**FAILED: $1**"; }
skip() { printf '%s\n' "$1" >>"$skipped"; say "" "*Left out: $1*"; }

# end_tree PID: ends it and what it has started, which may be waiting for a GPU.
end_tree() {
  local child
  for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do end_tree "$child"; done
  kill -TERM "$1" 2>/dev/null
}

ended=false
finish() {
  local code=$?
  $ended && return
  ended=true
  end_clocks
  say ""
  say "## The end"
  say ""
  say "After $SECONDS of $limit seconds."
  ((code < 128)) || say "* CUT OFF by signal $((code - 128))"
  local bad=false
  [[ ! -s $failures ]] || bad=true
  ((code == 0 || code >= 128)) || $bad || say "* a mistake in this script: exit code $code"
  local line
  while read -r line; do say "* left out: $line"; done <"$skipped"
  while read -r line; do say "* FAILED: $line"; done <"$failures"
  $bad || say "* nothing failed"
  rm -rf "$scratch"
  echo "report: $report"
  ((code == 0)) && $bad && code=1
  trap - EXIT
  exit "$code"
}
# The GPU's clocks, power and temperature all along, every two seconds: what figures were taken at.
clocks=''
begin_clocks() {
  nvidia-smi --query-gpu=clocks.sm,clocks.mem,power.draw,temperature.gpu,utilization.gpu \
    --format=csv,noheader,nounits -l 2 >"$out/clocks.csv" 2>>"$log" &
  clocks=$!
}
end_clocks() {
  [[ -n $clocks ]] || return 0
  kill "$clocks" 2>/dev/null
  clocks=''
  awk -F', *' '$5 >= 50 { n++; if (n == 1 || $1 < low) low = $1; if ($1 > high) high = $1; if ($3 > power) power = $3
      if ($4 > heat) heat = $4 }
    END { if (n) printf "* GPU while at least half busy (%d samples): SM clock %d to %d MHz, up to %d W and %d degrees\n",
      n, low, high, power, heat }' "$out/clocks.csv" | tee -a "$report" || true
}
trap finish EXIT

# title NAME SECONDS: begins a section; false where too little time is left. What the section may take is then $budget,
# and over at $until.
title() {
  local now wanted=$2
  now=$(left)
  $dry && wanted=$((wanted * 4)) # the simulator is slow
  if ((now < 15)); then
    printf '%s\n' "$1: no time left" >>"$skipped"
    return 1
  fi
  budget=$((wanted < now - 5 ? wanted : now - 5))
  until=$((SECONDS + budget))
  say ""
  say "## $1"
  say ""
  echo "==== $1, at $SECONDS s, for $budget s" >>"$log"
}
# within SECONDS COMMAND...: killed when they are over; errors go to the log.
within() {
  local seconds=$1
  shift
  timeout -k 3 "$seconds" "$@" 2>>"$log"
}
have() { command -v "$1" >/dev/null; }
version() { have "$1" && "$@" 2>/dev/null | grep -iE 'version|release' | tail -1; }

# All the steps: in a process of their own, so that a signal need not wait for what is under way.
steps() {
say "# cpvt on a GPU, $(date '+%Y-%m-%d %H:%M %Z')"
$dry && say "" "A rehearsal on the simulator: its times mean nothing."

# ---------------------------------------------------------------------------------------------------------------------
title "The machine" 30
sources=$(tools/gpu/pack.sh --stamp)
{
  echo "| | |"
  echo "|---|---|"
  changed=$([[ -z $(git status --porcelain 2>/dev/null) ]] || echo ', changed')
  echo "| sources | $sources; commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)$changed |"
  if ! $dry && have nvidia-smi; then
    asked=name,memory.total,driver_version,clocks.sm,clocks.max.sm,power.limit
    echo "| GPU ($asked) | $(timeout 20 nvidia-smi --query-gpu="$asked" --format=csv,noheader | head -1) |"
  else
    echo "| GPU | none: nvidia-smi was not found, or this is a rehearsal |"
  fi
  echo "| processor | $(nproc) x $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1) |"
  echo "| system | $(. /etc/os-release; echo "$PRETTY_NAME"), $(uname -r) |"
  echo "| nvcc | $(version nvcc --version || echo missing) |"
  echo "| Nsight Compute | $(version ncu --version || echo missing) |"
  echo "| compute-sanitizer | $(version compute-sanitizer --version || echo missing) |"
} | tee -a "$report"
torch=false
if within 60 "$python" -c 'import torch
cudnn = torch.backends.cudnn.version()
print("| PyTorch |", torch.__version__, "with CUDA", torch.version.cuda, "and cuDNN", cudnn, "|")' \
  >"$scratch/torch"; then
  torch=true
  tee -a "$report" <"$scratch/torch"
else
  echo "| PyTorch | missing: $python cannot import torch |" | tee -a "$report"
fi
if ! $dry && ! timeout 20 nvidia-smi >/dev/null 2>&1; then
  fail "no GPU: nvidia-smi finds none"
  exit 2
fi

# ---------------------------------------------------------------------------------------------------------------------
title "Build" 420 || exit 2
[[ -n $prebuilt || ! -f build/gpu.tar.xz ]] || prebuilt=build/gpu.tar.xz
build=''
if [[ -d $prebuilt ]]; then
  build=$(cd "$prebuilt" && pwd)
  say "Taken from $prebuilt as it is."
elif [[ -n $prebuilt ]]; then
  build=$scratch/prebuilt
  mkdir "$build"
  unpack='import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' # where tar may have no xz
  if "$python" -c "$unpack" "$prebuilt" "$build" 2>>"$log" ||
    tar -C "$build" -xf "$prebuilt" 2>>"$log"; then
    if [[ $(cat "$build/stamp") == "$sources" ]]; then
      say "Unpacked from $prebuilt, made of these very sources."
    else
      fail "$prebuilt was made of other sources ($(cat "$build/stamp"))"
    fi
    # Tests look for their data where they were built.
    built_in=$(cat "$build/source")
    [[ -e $built_in ]] || { mkdir -p "$(dirname "$built_in")" && ln -s "$root" "$built_in"; } 2>>"$log"
  else
    fail "$prebuilt cannot be unpacked"
    build=''
  fi
fi
built_here=false
if [[ -z $build ]]; then
  build=$root/build/gpu
  # cublasLt.h and cudnn.h may be in PyTorch's wheels alone.
  CMAKE_INCLUDE_PATH=$("$python" -c 'import glob, site
print(":".join(d for s in site.getsitepackages() for d in glob.glob(s + "/nvidia/*/include")))' 2>/dev/null)
  export CMAKE_INCLUDE_PATH
  configure() { within 60 cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release >>"$log"; }
  configure || { within 150 tools/packages.sh >>"$log" && configure; } || true
  targets=()
  for target in cpvt cpvt_cuda test_kernels_cuda test_engine_cuda bench_gpu_kernels ptxsim; do
    grep -q "build $target: phony" "$build/build.ninja" 2>/dev/null && targets+=("$target")
  done
  if ((${#targets[@]})) && within "$budget" cmake --build "$build" --target "${targets[@]}" >>"$log"; then
    built_here=true
    say "Built ${targets[*]} here in $SECONDS s."
  else
    fail "the build: see log.txt. It needs the packages of tools/packages.sh; where they cannot be installed, run \`tools/gpu/pack.sh\` on a machine that has built the project, and bring its build/gpu.tar.xz to the same place here"
  fi
fi
bin=$build/bin
# Of the libraries that the prebuilt programs brought, only what this machine lacks.
host=$build/lib/host
if [[ -d $host && $build == "$scratch"* ]]; then
  known=$(ldconfig -p 2>/dev/null)
  for library in "$host"/*; do
    name=$(basename "$library")
    if [[ $known == *$'\t'"$name "* ]]; then rm "$library"; fi
  done
  export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$host
fi
# PyTorch's wheels hold cuBLASLt and cuDNN.
wheels=$("$python" - 2>/dev/null <<'EOF'
import glob, os, site
for folder in site.getsitepackages():
    for name in glob.glob(folder + "/nvidia/*/lib"):
        if glob.glob(name + "/libcublasLt.so.13") or glob.glob(name + "/libcudnn.so.9"):
            print(name, end=":")
EOF
)
libraries=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/usr/local/cuda/lib64:$wheels
device=cuda
on_gpu=()  # in front of a CUDA program
if $dry; then
  device=sim
  on_gpu=("$bin/ptxsim" --)
fi
for program in cpvt bench_gpu_kernels test_kernels_cuda ptxsim; do
  [[ -x $bin/$program ]] || fail "$program is not there"
done

# ---------------------------------------------------------------------------------------------------------------------
# The tests of one operator: as tests/kernels/cuda/run_on_simulator.sh has them.
filter_of() {
  sed -nE 's/^(TEST|TEST_P|TEST_F|INSTANTIATE_TEST_SUITE_P)\(([A-Za-z0-9_]+), *([A-Za-z0-9_]+).*/\2 \3/p' \
    "tests/kernels/cuda/$1_test.cc" | awk '{print $1 ".*:*/" $1 ".*:*/" $2 ".*"}' | sort -u | paste -sd:
}
operators=$(cd tests/kernels/cuda && ls ./*_test.cc | sed 's#^./##; s#_test.cc$##')
# run_tests NAME SECONDS FILTER COMMAND...: leaves NAME.out and, last in it, the exit code.
run_tests() {
  local name=$1 seconds=$2 filter=$3
  shift 3
  {
    timeout -k 3 "$seconds" env LD_LIBRARY_PATH="$libraries" "$@" "$bin/test_kernels_cuda" \
      --gtest_filter="$filter"
    echo "exit code $?"
  } >"$scratch/$name.out" 2>&1
}
passed_in() { grep -c '^\[       OK' "$1"; }

if [[ -x $bin/test_kernels_cuda ]] && title "Kernel tests on the device" 120; then
  say "| operator | passed | exit code |"
  say "|---|---|---|"
  jobs=$($dry && echo 1 || echo 4)
  for operator in $operators; do
    filter=$(filter_of "$operator")
    if $dry; then
      [[ $operator =~ ^(layernorm|elementwise)$ ]] || continue
      filter='*Elementwise.GeluOfEveryWidth/*:*LayerNorm.ConstantRowsGiveBeta/*'
      [[ $operator == layernorm ]] && filter='*LayerNorm.ConstantRowsGiveBeta/*'
    fi
    while (($(jobs -rp | wc -l) >= jobs)); do wait -n; done
    run_tests "test-$operator" "$budget" "$filter" "${on_gpu[@]}" &
  done
  wait
  local bad=() # said after the table
  for operator in $operators; do
    file=$scratch/test-$operator.out
    [[ -f $file ]] || continue
    code=$(sed -n 's/^exit code //p' "$file")
    passed=$(passed_in "$file")
    say "| $operator | $passed | $code |"
    if [[ $code != 0 || $passed == 0 ]]; then
      bad+=("kernel tests of $operator: exit code $code")
      grep -E -A12 'Failure|FAILED|rror' "$file" | head -60 >>"$log"
    fi
  done
  for line in "${bad[@]}"; do fail "$line"; done
fi

if [[ -x $bin/test_engine_cuda ]] && title "Whole networks on the device (test_engine_cuda)" 60; then
  filter='*' && $dry && filter='*ReplaysPicturesThatDiffer/fp16'
  within "$budget" env LD_LIBRARY_PATH="$libraries" "${on_gpu[@]}" "$bin/test_engine_cuda" \
    --gtest_filter="$filter" >"$scratch/engine.out"
  code=$?
  cat "$scratch/engine.out" >>"$log"
  say "$(passed_in "$scratch/engine.out") tests passed, exit code $code."
  say "$(grep 'worst error' "$scratch/engine.out" | paste -sd';')"
  ((code == 0)) || fail "test_engine_cuda: exit code $code"
fi

if $torch && [[ -x $bin/cpvt ]] && title "Goldens of tests/data/models through cpvt run --device $device" 70; then
  some=() && $dry && some=(--models gap,token --dtypes fp32,fp16 --jobs 1)
  within $((budget + 3)) "$python" tools/gpu/check_goldens.py --cpvt "$bin/cpvt" --device "$device" \
    --deadline "$budget" "${some[@]}" | tee -a "$report"
  ((PIPESTATUS[0] == 0)) || fail "goldens"
fi

# ---------------------------------------------------------------------------------------------------------------------
# Forward passes first: the comparison with PyTorch reads them. Under ptxsim, its libraries must come first.
kernels() {
  local seconds=$1
  shift
  timeout -k 3 "$seconds" env LD_LIBRARY_PATH="$libraries" "${on_gpu[@]}" "$bin/bench_gpu_kernels" "$@"
}
passes=(--batches '1,2,4,8,16,32,64,128,256' --milliseconds 60)
problems=(--batches '1,8,64,256' --dtypes 'fp16,bf16,fp32')
if $dry; then
  passes=(--size 32 --depth 1 --launches 1 --milliseconds 0.01 --models Ti --batches 1 --dtypes fp32)
  problems=("${passes[@]}" --no-libraries)
fi
torch_tiny=()
$dry && torch_tiny=(--size 32 --depth 1 --seconds 0.01 --repetitions 1 --models Ti --batches 1 --dtypes fp32)
if [[ -x $bin/bench_gpu_kernels ]] && title "Forward passes on the device" 45; then
  kernels $((budget + 5)) --json --deadline "$budget" --only forward --no-libraries "${passes[@]}" \
    >>"$figures" 2>"$scratch/forward.err"
  code=$?
  cat "$scratch/forward.err" >>"$log"
  late=$(grep -c '^the deadline came before' "$scratch/forward.err")
  ((late == 0)) || skip "$late of the forward passes: the deadline came before them"
  say "$(grep -c forward "$figures") forward passes timed, exit code $code; figures in the next table."
  ((code == 0)) || fail "bench_gpu_kernels --only forward: exit code $code"
fi

compare() { # WHAT FLAGS...
  local what=$1 seconds=$((until - SECONDS))
  shift
  if ((seconds < 10)); then
    skip "$what $*: no time left"
    return
  fi
  within $((seconds + 4)) "$python" tools/gpu/compare_pytorch.py "$what" --cpvt "$bin/cpvt" --device "$device" \
    --json "$figures" --deadline $((seconds - 2)) "$@" "${torch_tiny[@]}" | tee -a "$report"
  local code=${PIPESTATUS[0]}
  case $code in
    0) ;;
    124 | 137) skip "rows of compare_pytorch.py $what $* that were under way when its time was over" ;;
    *) fail "compare_pytorch.py $what: exit code $code" ;;
  esac
}
if $torch && title "Whole models beside PyTorch" 130; then
  say "CPVT-GAP, $($dry && echo 32 || echo 224) px. \"Host\": from pixels in the host's memory to logits there;"
  say "\"device\": without these copies, PyTorch eagerly and as a CUDA graph. Medians in ms; ratios above 1: for cpvt."
  say ""
  compare models --dtypes fp16 --batches 1,8,32,64,128,256 --seconds 0.15
  if ! $dry; then
    say ""
    compare models --dtypes bf16,fp32 --batches 1,64,256 --seconds 0.15
  fi
elif ! $torch; then
  skip "the comparison with PyTorch: there is none"
fi

if [[ -x $bin/bench_gpu_kernels ]] && title "Every kernel beside cuBLASLt and cuDNN" 60; then
  say "Microseconds, the median of CUDA graphs of 20 launches; ratio: library / cpvt, above 1 is for cpvt."
  say "GB/s counts every operand once."
  say ""
  say '```'
  kinds=(patch_embed qkv attention proj fc1 fc2 peg layernorm pool head)
  # One run for the table that a person reads and the lines that programs read.
  kernels $((budget + 5)) --json --deadline "$budget" --only "$(IFS=,; echo "${kinds[*]}")" \
    "${problems[@]}" 2>"$scratch/kernels.err" | tee -a "$figures" >"$scratch/kernels.jsonl"
  code=${PIPESTATUS[0]}
  "$python" - "$scratch/kernels.jsonl" <<'EOF' | tee -a "$report"
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
  say '```'
  say "$(head -1 "$scratch/kernels.err")"
  late=$(grep -c '^the deadline came before' "$scratch/kernels.err")
  ((late == 0)) || skip "$late of the table's networks, dtypes and batches: $(grep -m1 '^the deadline' "$scratch/kernels.err") and those after it"
  cat "$scratch/kernels.err" >>"$log"
  ((code == 0)) || fail "bench_gpu_kernels: exit code $code: $(tail -1 "$scratch/kernels.err")"
  ! grep -q 'RESULTS DIFFER' "$scratch/kernels.jsonl" || fail "a kernel and its library do not agree"
fi

if $torch && title "Single operators of PyTorch" 30; then
  compare kernels --dtypes fp16,bf16,fp32 --batches 1,8,64,256 --seconds 0.05
fi

# ---------------------------------------------------------------------------------------------------------------------
sanitize() { # TOOL: one operator after the other, each for its share of the time
  local operator share=$((budget / $(wc -w <<<"$operators"))) flags=()
  [[ $1 == memcheck ]] && flags=(--report-api-errors no) # tests ask for launches that are refused
  for operator in $operators; do
    run_tests "$1-$operator" "$share" "$(filter_of "$operator")" \
      compute-sanitizer --tool "$1" --error-exitcode 99 --print-limit 5 "${flags[@]}"
  done
}
sanitizer_errors='Warning: |Invalid|Uninitialized|Error: |Race|Barrier|Misaligned|Program hit|Fatal|Internal'
if $dry || ! have compute-sanitizer; then
  skip "compute-sanitizer: $($dry && echo 'needs a GPU' || echo 'not on this machine'); ptxsim --check asks the same"
elif [[ -x $bin/test_kernels_cuda ]] && title "compute-sanitizer over the kernel tests" 65; then
  say "All four tools side by side, an operator for $((budget / $(wc -w <<<"$operators"))) s: what passed, and errors."
  say ""
  say "| operator | memcheck | racecheck | initcheck | synccheck |"
  say "|---|---|---|---|---|"
  for tool in memcheck racecheck initcheck synccheck; do sanitize "$tool" & done
  wait
  bad=() cut=()
  for operator in $operators; do
    row="| $operator "
    for tool in memcheck racecheck initcheck synccheck; do
      file=$scratch/$tool-$operator.out
      code=$(sed -n 's/^exit code //p' "$file")
      errors=$(grep -cE "^=+ +($sanitizer_errors)" "$file")
      row+="| $(passed_in "$file") tests, $errors errors$([[ $code == 124 || $code == 137 ]] && echo ', cut off')"
      case $code in
        0) ((errors == 0 && $(passed_in "$file") > 0)) || bad+=("$tool, $operator: $errors errors, $(passed_in "$file") tests") ;;
        124 | 137)
          cut+=("$tool of $operator after $(passed_in "$file") tests")
          ((errors == 0)) || bad+=("$tool, $operator: $errors errors")
          ;;
        *) bad+=("$tool, $operator: exit code $code, $errors errors") ;;
      esac
      [[ $code == 0 ]] || grep -A12 '^=====' "$file" | head -80 >>"$log"
    done
    say "$row |"
  done
  for line in "${bad[@]}"; do fail "$line"; done
  ((${#cut[@]} == 0)) || skip "the rest of what compute-sanitizer was to see: $(printf '%s; ' "${cut[@]}")"
  if [[ -x $bin/test_engine_cuda ]]; then
    within 40 env LD_LIBRARY_PATH="$libraries" compute-sanitizer --tool memcheck --error-exitcode 99 \
      "$bin/test_engine_cuda" --gtest_filter='*ReplaysPicturesThatDiffer*' >"$scratch/engine-memcheck.out"
    code=$?
    say "" "memcheck over whole networks: $(passed_in "$scratch/engine-memcheck.out") tests passed, exit code $code."
    ((code == 0)) || fail "memcheck of test_engine_cuda: exit code $code"
    ((code == 0)) || tail -60 "$scratch/engine-memcheck.out" >>"$log"
  fi
fi

if [[ -x $bin/ptxsim && -x $bin/bench_gpu_kernels ]] && title "ptxsim's counters beside Nsight Compute's" 50; then
  once=(--once --models S --dtypes fp16 --batches 8 --only 'qkv,attention,fc1,fc2,peg,layernorm')
  $dry && once=(--once --models Ti --dtypes fp16 --batches 1 --size 32 --only 'attention,peg,layernorm')
  gpu=h100
  ! $dry && timeout 20 nvidia-smi --query-gpu=name --format=csv,noheader | grep -q H200 && gpu=h200
  within $((budget / 2)) "$bin/ptxsim" --gpu "$gpu" --report="$out/ptxsim.json" -- \
    "$bin/bench_gpu_kernels" "${once[@]}" >>"$log" || fail "ptxsim --report"
  measured=()
  if $dry || ! have ncu; then
    skip "Nsight Compute: $($dry && echo 'needs a GPU' || echo 'not on this machine')"
  else
    counters() {
      within $((budget / 2)) ncu --csv --page raw --print-units base --clock-control none --metrics "$1" \
        "$bin/bench_gpu_kernels" "${once[@]}" >"$out/ncu.csv" && grep -q '^"[0-9]' "$out/ncu.csv"
    }
    # An ncu that does not know one of the names measures nothing.
    if counters "$("$python" tools/gpu/compare_counters.py --metrics all)" ||
      counters "$("$python" tools/gpu/compare_counters.py --metrics core)"; then
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
fi

if $dry; then
  skip "torch.compile: needs a GPU"
elif $torch && title "Whole models beside torch.compile(mode=\"max-autotune\")" 120; then
  # Compiling takes most of a minute each: what is wanted most comes first.
  compare compiled --dtypes fp16 --models S --batches 64,1
  compare compiled --dtypes fp16 --models B,Ti --batches 256,1
fi

# What needs no GPU comes last, and only where the project could be built whole.
if $built_here && ! $dry && title "The rest of the suite" 300; then
  if within "$budget" cmake --build "$build" >>"$log"; then
    within $(($(left) - 5)) ctest --test-dir "$build" -j "$(nproc)" >"$scratch/ctest.out"
    code=$?
    cat "$scratch/ctest.out" >>"$log"
    say "$(grep -E 'tests passed|tests failed' "$scratch/ctest.out" || echo 'cut off: see log.txt')"
    [[ $code == 0 || $code == 124 ]] || fail "ctest: exit code $code"
  else
    skip "the rest of the suite: it was not built in time"
  fi
elif ! $built_here; then
  skip "the rest of the suite: it needs no GPU, and was not built here"
fi
exit 0
}

if ! $dry && have nvidia-smi; then begin_clocks; fi
steps &
child=$!
trap 'end_tree "$child"; exit 143' TERM INT HUP
wait "$child"
exit $?
