#!/usr/bin/env python3
"""Times CPVT-GAP Ti, S and B beside PyTorch on the same GPU.

    python3 tools/gpu/compare_pytorch.py models   [--dtypes fp16,bf16,fp32] [--batches 1,2,4,…,256]
    python3 tools/gpu/compare_pytorch.py compiled [--dtypes fp16] [--batches 1,64]     torch.compile, max-autotune
    python3 tools/gpu/compare_pytorch.py kernels  single operators of PyTorch, scaled_dot_product_attention above all

Weights are random: they do not change the work. PyTorch runs weights/pytorch/cpvt.py with scaled_dot_product_attention
in place of the written-out softmax, in the dtype (no autocast), fp32 without TF32, as cpvt has it. Two times are taken:

    host    from fp32 pixels in the host's ordinary memory to logits there, as `cpvt bench` measures it
    device  from pixels on the device to logits there, by CUDA events around one pass that begins on an idle device;
            cpvt: bench_gpu_kernels' "forward", one replay of a CUDA graph. PyTorch's pixels are in the dtype already.

Medians in milliseconds. Markdown goes to stdout, row by row; every figure also to --json, an object per line, where
cpvt's device times are looked up too. Without a GPU (--device sim) PyTorch computes on the CPU: a rehearsal.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import torch
from tensors import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "weights" / "pytorch"))
try:
    import timm.layers  # noqa: F401
except ImportError:  # only other position encodings than PEG need it
    names = types.ModuleType("timm.layers")
    names.build_sincos2d_pos_embed = names.resample_abs_pos_embed = None
    sys.modules["timm"], sys.modules["timm.layers"] = types.ModuleType("timm"), names
import cpvt  # noqa: E402

MODELS = {"Ti": (192, 3), "S": (384, 6), "B": (768, 12)}  # width, heads; CPVT, table 7
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
BOUNDS = {"fp32": 5e-5, "fp16": 5e-3, "bf16": 2e-2}


def sdpa(self: cpvt.Attention, x: torch.Tensor) -> torch.Tensor:
    batch, rows, dim = x.shape
    q, k, v = self.qkv(x).view(batch, rows, 3, self.num_heads, dim // self.num_heads).permute(2, 0, 3, 1, 4)
    return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, rows, dim))


cpvt.Attention.forward = sdpa


class Figures:
    """What was measured: kept in memory, and appended to a file line by line."""

    def __init__(self, path: str | None):
        self.path = path
        self.rows = []
        if path and Path(path).exists():
            # A line may have been cut off.
            whole = [line for line in Path(path).read_text().splitlines() if line[:1] == "{" and line[-1:] == "}"]
            self.rows = [json.loads(line) for line in whole]

    def add(self, **row) -> None:
        self.rows.append(row)
        if self.path:
            with open(self.path, "a") as file:
                file.write(json.dumps(row) + "\n")

    def find(self, value: str, **wanted):
        for row in reversed(self.rows):
            if value in row and all(row.get(k) == v for k, v in wanted.items()):
                return row[value]
        return None


class Stopwatch:
    def __init__(self, device: str, seconds: float):
        self.gpu, self.seconds = device == "cuda", seconds

    def _median(self, once) -> float:
        for _ in range(3):
            once()
        times, end = [], time.perf_counter() + self.seconds
        while len(times) < 3 or (time.perf_counter() < end and len(times) < 2000):
            times.append(once())
        return statistics.median(times)

    def host(self, run) -> float:
        """`run` ends with its result in the host's memory."""

        def once() -> float:
            start = time.perf_counter()
            run()
            return 1e3 * (time.perf_counter() - start)

        return self._median(once)

    def device(self, run) -> float:
        """One run by itself, as bench_gpu_kernels takes the time of a replay."""
        if not self.gpu:
            return self.host(run)

        def once() -> float:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            end.synchronize()
            return begin.elapsed_time(end)

        return self._median(once)

    def graph(self, run, count: int = 1) -> float | None:
        """The same as a CUDA graph of `count` runs; None where that cannot be captured."""
        if not self.gpu:
            return None
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(count):
                run()
        return self.device(graph.replay) / count


def text(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def ratio(theirs: float | None, ours: float | None) -> str:
    return "-" if not theirs or not ours else f"**{theirs / ours:.2f}**"


def program(command: list[str], end: float) -> str:
    left = max(1.0, end - time.monotonic())
    run = subprocess.run(command, capture_output=True, text=True, timeout=left)
    if run.returncode != 0:
        raise RuntimeError(f"{command[0]}: exit code {run.returncode}: {run.stderr.strip()[-300:]}")
    return run.stdout


class Models:
    def __init__(self, args, figures: Figures, end: float):
        self.args, self.figures, self.end = args, figures, end
        self.torch_device = "cuda" if args.device == "cuda" else "cpu"
        self.watch = Stopwatch(args.device, args.seconds)
        self.scratch = tempfile.TemporaryDirectory()
        self.failures, self.left_out = [], []

    def late(self, *rows: str) -> bool:
        """Whether the time is over; the rows are told as left out then."""
        over = time.monotonic() > self.end
        self.left_out += rows if over else ()
        return over

    def failed(self, row: str, problem: Exception) -> None:
        """What the deadline cuts short is left out, not a failure."""
        if isinstance(problem, subprocess.TimeoutExpired):
            self.left_out.append(f"{row}: of cpvt, cut off")
        else:
            self.failures.append(f"{row}: {problem}")

    def make(self, name: str) -> tuple[nn.Module, Path]:
        torch.manual_seed(1)
        width, heads = MODELS[name]
        config = cpvt.Config(embed_dim=width, num_heads=heads, depth=self.args.depth, global_pool="avg")
        model = cpvt.CPVT(config).initialise().eval()
        folder = Path(self.scratch.name) / name
        if not folder.exists():
            folder.mkdir()
            (folder / "config.json").write_text(json.dumps(config.to_json()))
            save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
        return model, folder

    def pixels(self, batch: int) -> torch.Tensor:
        return torch.randn(batch, 3, self.args.size, self.args.size)

    def ours(self, name: str, folder: Path, dtype: str, batch: int) -> dict:
        flags = ["--device", self.args.device, "--dtype", dtype]
        command = [self.args.cpvt, "bench", str(folder), "--size", str(self.args.size), "--batch", str(batch), "--json"]
        command += ["--repetitions", str(self.args.repetitions), *flags]
        ms = json.loads(program(command, self.end))["ms"]
        device = self.figures.find("us", model=name, dtype=dtype, batch=batch, kernel="forward")
        return {"cpvt_host": ms["median"], "cpvt_host_iqr": ms["iqr"], "cpvt_device": device and device / 1e3}

    def error(self, model: nn.Module, folder: Path, dtype: str) -> float:
        """Of cpvt's logits against PyTorch's in fp32, at the size that is timed."""
        image = torch.randn(2, 3, self.args.size, self.args.size)
        source, result = Path(self.scratch.name) / "in.safetensors", Path(self.scratch.name) / "out.safetensors"
        save_file({"input": image}, source)
        flags = ["--device", self.args.device, "--dtype", dtype]
        program([self.args.cpvt, "run", str(folder), str(source), "-o", str(result), *flags], self.end)
        expected = model.float().to(self.torch_device)(image.to(self.torch_device)).cpu()
        return float((load_file(result)["logits"] - expected).abs().max() / expected.abs().max())

    def eager(self) -> None:
        print("| model | dtype | batch | cpvt host ms | PyTorch host ms | PyTorch / cpvt | cpvt device ms "
              "| eager device ms | in a CUDA graph | eager / cpvt | graph / cpvt | cpvt images/s (device) | error |\n"
              "|---|---|---|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
        for dtype in self.args.dtypes:
            for name in self.args.models:
                if self.late(*(f"{name} {dtype} batch {batch}" for batch in self.args.batches)):
                    continue
                model, folder = self.make(name)
                try:
                    error = self.error(model, folder, dtype)
                    if not error <= BOUNDS[dtype]:
                        self.failures.append(f"{name} {dtype}: error {error:.1e}, bound {BOUNDS[dtype]:.0e}")
                except (RuntimeError, OSError, subprocess.TimeoutExpired) as problem:
                    error = None
                    self.failed(f"{name} {dtype}, error", problem)
                model = model.to(self.torch_device, DTYPES[dtype])
                for batch in self.args.batches:
                    if self.late(f"{name} {dtype} batch {batch}"):
                        continue
                    self.eager_row(model, folder, name, dtype, batch, error)
                    error = None
                del model

    def eager_row(self, model, folder: Path, name: str, dtype: str, batch: int, error: float | None) -> None:
        row = {"what": "model", "model": name, "dtype": dtype, "batch": batch, "error": error}
        try:
            row |= self.ours(name, folder, dtype, batch)
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as problem:
            self.failed(f"{name} {dtype} batch {batch}", problem)
        try:
            pixels = self.pixels(batch)
            to = {"device": self.torch_device, "dtype": DTYPES[dtype]}
            on_device = pixels.to(**to)
            row["eager_host"] = self.watch.host(
                lambda: model(pixels.to(self.torch_device).to(DTYPES[dtype])).float().cpu()
            )
            row["eager_device"] = self.watch.device(lambda: model(on_device))
            row["graph_device"] = self.watch.graph(lambda: model(on_device))
        except RuntimeError as problem:
            self.failures.append(f"PyTorch {name} {dtype} batch {batch}: {str(problem)[:200]}")
        self.figures.add(**row)
        get = row.get
        per_second = batch / get("cpvt_device") * 1e3 if get("cpvt_device") else None
        print(
            f"| {name} | {dtype} | {batch} | {text(get('cpvt_host'))} | {text(get('eager_host'))} "
            f"| {ratio(get('eager_host'), get('cpvt_host'))} | {text(get('cpvt_device'))} "
            f"| {text(get('eager_device'))} | {text(get('graph_device'))} "
            f"| {ratio(get('eager_device'), get('cpvt_device'))} "
            f"| {ratio(get('graph_device'), get('cpvt_device'))} | {text(per_second, 0)} "
            f"| {'' if error is None else f'{error:.1e}'} |",
            flush=True,
        )

    def compiled(self) -> None:
        print(f"`torch.compile(mode=\"{self.args.mode}\")`, device only:\n\n"
              "| model | dtype | batch | cpvt ms | compiled ms | compiled / cpvt | compiling s |\n"
              "|---|---|---|---|---|---|---|")  # fmt: skip
        for batch in self.args.batches:
            for dtype in self.args.dtypes:
                for name in self.args.models:
                    if self.late(f"compiled {name} {dtype} batch {batch}"):
                        continue
                    self.compiled_row(name, dtype, batch)

    def compiled_row(self, name: str, dtype: str, batch: int) -> None:
        torch._dynamo.reset()
        model = self.make(name)[0].to(self.torch_device, DTYPES[dtype])
        pixels = self.pixels(batch).to(self.torch_device, DTYPES[dtype])
        fast = torch.compile(model, mode=self.args.mode, fullgraph=True, dynamic=False)
        start = time.monotonic()
        try:
            for _ in range(3):
                fast(pixels)
            if self.torch_device == "cuda":
                torch.cuda.synchronize()
            took = time.monotonic() - start
            device = self.watch.device(lambda: fast(pixels))
        except Exception as problem:  # noqa: BLE001: a compiler's: anything
            self.failures.append(f"compiled {name} {dtype} batch {batch}: {str(problem)[:200]}")
            return
        ours = self.figures.find("us", model=name, dtype=dtype, batch=batch, kernel="forward")
        ours = ours and ours / 1e3
        row = {"what": "compiled", "model": name, "dtype": dtype, "batch": batch, "seconds": took}
        self.figures.add(**row, compiled_device=device, cpvt_device=ours)
        print(f"| {name} | {dtype} | {batch} | {text(ours)} | {text(device)} | {ratio(device, ours)} | {took:.0f} |",
              flush=True)  # fmt: skip

    def kernels(self) -> None:
        print("| kernel | model | dtype | batch | cpvt us | PyTorch us | PyTorch / cpvt | by |\n"
              "|---|---|---|---|---|---|---|---|")  # fmt: skip
        for dtype in self.args.dtypes:
            for batch in self.args.batches:
                for name in self.args.models:
                    if self.late(f"kernels {name} {dtype} batch {batch}"):
                        continue
                    self.kernel_rows(name, dtype, batch)

    def kernel_rows(self, name: str, dtype: str, batch: int) -> None:
        width, heads = MODELS[name]
        side = self.args.size // 16
        rows = side * side
        make = {"device": self.torch_device, "dtype": DTYPES[dtype]}
        q, k, v = torch.randn(batch, rows, 3, heads, width // heads, **make).permute(2, 0, 3, 1, 4)
        ways = {}
        for backend in ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH"):
            if not hasattr(SDPBackend, backend):
                continue  # not in this PyTorch
            def attention(backend=getattr(SDPBackend, backend)):
                with sdpa_kernel(backend):
                    return F.scaled_dot_product_attention(q, k, v)  # fmt: skip
            ways[backend] = attention
        self.kernel_row("attention", "attention", name, dtype, batch, ways)

        x = torch.randn(batch * rows, width, **make)
        gamma, beta = torch.randn(width, **make), torch.randn(width, **make)
        norm = {"layer_norm": lambda: F.layer_norm(x, (width,), gamma, beta)}
        self.kernel_row("layernorm", "layernorm", name, dtype, batch, norm)

        # Tokens are rows already, and stay rows: channels_last; or PyTorch's own order.
        weight, bias = torch.randn(width, 1, 3, 3, **make), torch.randn(width, **make)
        image = torch.randn(batch, side, side, width, **make).permute(0, 3, 1, 2)
        planes, last = image.contiguous(), weight.to(memory_format=torch.channels_last)
        peg = {
            "conv2d channels_last": lambda: F.conv2d(image, last, bias, padding=1, groups=width),
            "conv2d planes": lambda: F.conv2d(planes, weight, bias, padding=1, groups=width),
        }
        self.kernel_row("peg (PyTorch: without x +)", "peg", name, dtype, batch, peg)

    def kernel_row(self, title: str, kernel: str, name: str, dtype: str, batch: int, ways: dict) -> None:
        times = {}
        for way, run in ways.items():
            try:
                times[way] = 1e3 * (self.watch.graph(run, 20) if self.torch_device == "cuda" else self.watch.host(run))
            except RuntimeError:  # no kernel for this dtype here
                continue
        if not times:
            self.failures.append(f"{kernel} {name} {dtype} batch {batch}: PyTorch has none")
            return
        way = min(times, key=times.get)
        ours = self.figures.find("us", model=name, dtype=dtype, batch=batch, kernel=kernel)
        row = {"what": "kernel", "model": name, "dtype": dtype, "batch": batch}
        self.figures.add(**row, kernel=kernel + ", PyTorch", torch_us=times)
        print(
            f"| {title} | {name} | {dtype} | {batch} | {text(ours, 2)} | {text(times[way], 2)} "
            f"| {ratio(times[way], ours)} | {way.lower()} |",
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    listed = lambda words: words.split(",")  # noqa: E731
    parser.add_argument("what", choices=["models", "compiled", "kernels"])
    parser.add_argument("--cpvt", default=str(ROOT / "build/release/bin/cpvt"))
    parser.add_argument("--device", default="cuda", choices=["cuda", "sim"])
    parser.add_argument("--models", type=listed, default=list(MODELS))
    parser.add_argument("--dtypes", type=listed, default=list(DTYPES))
    parser.add_argument("--batches", type=lambda s: [int(b) for b in s.split(",")], default=[2**i for i in range(9)])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=0.2, help="to measure each figure of PyTorch's")
    parser.add_argument("--repetitions", type=int, default=30, help="of `cpvt bench`")
    parser.add_argument("--mode", default="max-autotune")
    parser.add_argument("--json", help="append every figure to this file; also read bench_gpu_kernels' from it")
    parser.add_argument("--deadline", type=float, default=1e9, help="seconds after which nothing more is begun")
    args = parser.parse_args()
    end = time.monotonic() + args.deadline
    if args.device == "cuda" and not torch.cuda.is_available():
        print("PyTorch sees no GPU", file=sys.stderr)
        return 2
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    models = Models(args, Figures(args.json), end)
    with torch.inference_mode():
        {"models": models.eager, "compiled": models.compiled, "kernels": models.kernels}[args.what]()
    if models.failures:
        print("\n" + "\n".join(f"* FAILED {f}" for f in models.failures))
    if models.left_out:
        print(f"\n{len(models.left_out)} rows left out, the time was over: {'; '.join(models.left_out)}")
    return 1 if models.failures else 0


if __name__ == "__main__":
    sys.exit(main())
