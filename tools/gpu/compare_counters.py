#!/usr/bin/env python3
"""Puts what ptxsim counted beside what Nsight Compute measured, kernel by kernel.

    ptxsim --report=ptxsim.json -- PROGRAM
    ncu --csv --page raw --print-units base --metrics "$NAMES" PROGRAM > ncu.csv    # NAMES: --metrics all prints them
    python3 tools/gpu/compare_counters.py ptxsim.json [ncu.csv]

Both run the same program; kernels are matched by name, template arguments, grid and block. ptxsim counts PTX, the GPU
executes what ptxas made of it: instructions differ by design, sectors, wavefronts and bank conflicts should not. But
ptxsim has among loads and stores what ncu's counters of them, the LSU's, do not know: what TMA fetches and wgmma reads
(kernels named ..._warpgroups), and what cp.async takes from global to shared memory. No ratio is given there.

Times are ncu's: caches flushed before each pass (its default), which is what ptxsim's estimate supposes too.
"""

import argparse
import csv
import json
import re
import sys

# What is compared: ptxsim's counters that have a counterpart of the same name, and the words for them.
COUNTERS = {
    "launch__registers_per_thread": "registers",
    "smsp__inst_executed.sum": "warp instructions",
    "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum": "global load requests",
    "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum": "global load sectors",
    "l1tex__t_requests_pipe_lsu_mem_global_op_st.sum": "global store requests",
    "l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum": "global store sectors",
    "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum": "shared load wavefronts",
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum": "shared load conflicts",
    "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_st.sum": "shared store wavefronts",
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum": "shared store conflicts",
}
# What only the GPU knows.
MEASURED = {
    "gpu__time_duration.sum": "time, us",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "SM, % of peak",
    "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed": "memory, % of peak",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy, %",
    "dram__bytes.sum": "DRAM bytes",
}


def incomparable(kernel: str, counter: str, async_copies: int) -> str:
    """What is in ptxsim's counter and not in ncu's; empty where both count the same."""
    if not async_copies or "_pipe_lsu_" not in counter or "_global_op_st" in counter:
        return ""
    if "warpgroups" in kernel:
        return "TMA, wgmma"
    return "" if "_shared_op_ld" in counter else "cp.async"


def key(name: str, grid: int, block: int) -> tuple:
    name = re.sub(r"\((?:bool|int|unsigned int|long|unsigned long)\)", "", name)  # casts of template arguments
    name = name.replace("(anonymous namespace)::", "").replace("<unnamed>::", "")
    depth = 0
    for i, c in enumerate(name):  # the parameter list
        depth += (c == "<") - (c == ">" and name[i - 1] != "-")
        if c == "(" and depth == 0:
            name = name[:i]
            break
    name = re.sub(r"\b\w+::", "", name).removeprefix("void ")
    name = re.sub(r"\btrue\b", "1", re.sub(r"\bfalse\b", "0", name))
    return re.sub(r"(?<=\d)[uUlL]+\b", "", name).replace(" ", ""), grid, block


def product(dims) -> int:
    total = 1
    for d in dims if isinstance(dims, list) else re.findall(r"\d+", str(dims)):
        total *= int(d)
    return total


def simulated(path: str) -> dict:
    kernels = {}
    for k in json.load(open(path))["kernels"]:
        each = {c: k.get(c, 0) / (1 if c.startswith("launch__") else k["launches"]) for c in COUNTERS}
        each["estimate"] = k["estimate"]["seconds_per_launch"] * 1e6
        each["limiter"] = k["estimate"]["limiter"]
        each["async"] = k["instructions"].get("async_copy", 0)
        kernels[key(k["kernel"], product(k["launch__grid_size"]), product(k["launch__block_size"]))] = each
    return kernels


def measured(path: str) -> dict:
    """Means over launches. The program's own output comes first, then the header, the units, and a row per launch."""
    lines = open(path, errors="replace").read().splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        return {}
    sums, counts = {}, {}
    for row in csv.DictReader(lines[start:]):
        if not (row.get("ID") or "").isdigit():
            continue  # units
        k = key(row["Kernel Name"], product(row["Grid Size"]), product(row["Block Size"]))
        counts[k] = counts.get(k, 0) + 1
        for c in [*COUNTERS, *MEASURED]:
            try:
                value = float((row.get(c) or "").replace(",", ""))
            except ValueError:
                continue
            sums.setdefault(k, {}).setdefault(c, 0.0)
            sums[k][c] += value
    return {k: {c: v / counts[k] for c, v in values.items()} for k, values in sums.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ptxsim", nargs="?")
    parser.add_argument("ncu", nargs="?")
    parser.add_argument("--metrics", choices=["all", "core"], help="only print what ncu is to be asked for")
    args = parser.parse_args()
    if args.metrics:
        print(",".join([*COUNTERS, *(MEASURED if args.metrics == "all" else ["gpu__time_duration.sum"])]))
        return 0
    ours = simulated(args.ptxsim)
    theirs = measured(args.ncu) if args.ncu else {}
    print("| kernel | grid x block | counter | ptxsim | GPU | GPU / ptxsim |\n|---|---|---|---|---|---|")
    unmatched = 0
    for k, counters in ours.items():
        gpu = theirs.get(k, {})
        unmatched += not gpu
        first = f"| `{k[0]}` | {k[1]} x {k[2]} "
        for c, text in COUNTERS.items():
            if counters[c] == 0 and gpu.get(c, 0) == 0:
                continue
            value = f"{gpu[c]:,.0f}" if c in gpu else "-"
            ratio = f"{gpu[c] / counters[c]:.3f}" if c in gpu and counters[c] else "-"
            if c in gpu and (more := incomparable(k[0], c, counters["async"])):
                ratio = f"not comparable: {more}"
            print(f"{first}| {text} | {counters[c]:,.0f} | {value} | {ratio} |")
            first = "| | "
        time = gpu.get("gpu__time_duration.sum")
        print(
            f"| | | time, us: at least, by {counters['limiter']} | {counters['estimate']:.2f} | "
            + (f"{time / 1e3:.2f} | {time / 1e3 / counters['estimate']:.2f} |" if time else "- | - |")
        )
        rest = [f"{t} {gpu[c]:,.1f}" for c, t in MEASURED.items() if c in gpu and c != "gpu__time_duration.sum"]
        if rest:
            print(f"| | | {'; '.join(rest)} | | | |")
    if args.ncu:
        print(f"\n{len(ours) - unmatched} of {len(ours)} kernels of ptxsim were found among the {len(theirs)} of ncu.")
        return 1 if unmatched == len(ours) else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
