#!/usr/bin/env python3
"""Puts regla beside PyTorch and flash-linear-attention on one GPU, in one call.

    gpu_peers.py recurrences [--program regla] [--fla FOLDER] [--tokens 32768] [--lengths T ...] [--only NAME ...]
    gpu_peers.py train [--program regla] [--config configs/bench/160m_regla.json] [--batch 8] [--length 2048]
                       [--only NAME ...] [--repeats 10]

`recurrences` times one mixer's kernel forward, and forward and backward, over segments of 1,024 to
16,384 tokens with the same number of tokens in each batch, in bf16: fla's chunk_gla,
chunk_simple_gla and chunk_linear_attn (from FOLDER, or as installed; left out with a line where
there is none), PyTorch's flash attention, and beside each what it is compared with of `regla bench
recurrences`. What fla's autotuning tries is compiled by all processors first. `train` times
whole updates: PyTorch's softmax model, eager and compiled, under autocast with fused AdamW, and
`regla bench train` of the configuration and of the same with softmax (`--only compiled regla` leaves
out what begins otherwise: eager takes a while and 16 GiB). Before and after each part it measures
what the card gives: GB/s of a copy (reads and writes) and TFLOP/s of a bf16 product.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent))
from pytorch_model import Decoder  # noqa: E402
from pytorch_peer import adamw, loss_of, read_config, require  # noqa: E402

HEADS, SIZE = 12, 64
LENGTHS = (1024, 2048, 4096, 8192, 16384)
PEERS = {  # name -> the rows of `regla bench recurrences` that it is compared with
    "fla chunk_gla": ("value", "gla"),
    "fla chunk_simple_gla": ("scalar",),
    "fla chunk_linear_attn": ("plain",),
    "PyTorch flash attention": ("softmax_attention",),
}


def milliseconds(function, repeats=30):
    """The median by the GPU's own events, after three runs that compile and fill caches."""
    for _ in range(3):
        function()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    marks[0].record()
    for mark in marks[1:]:
        function()
        mark.record()
    torch.cuda.synchronize()
    times = sorted(a.elapsed_time(b) for a, b in zip(marks, marks[1:]))
    return times[len(times) // 2]


def limits():
    """(GB/s of a large copy, TFLOP/s of a large bf16 product) of this card now."""
    a = torch.empty(2**30, dtype=torch.uint8, device="cuda").random_()
    b = torch.empty_like(a)
    copy = 2 * a.numel() / milliseconds(lambda: b.copy_(a), 10) / 1e6
    x = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    y = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    return copy, 2 * 8192**3 / milliseconds(lambda: x @ y, 10) / 1e9


def print_limits(when):
    copy, product = limits()
    print(f"{when}: copies {copy:.0f} GB/s, bf16 products {product:.0f} TFLOP/s")


def forward_and_both(function, inputs):
    """Milliseconds of the forward pass alone, and of it with all gradients."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    seed = torch.randn_like(function(*leaves))
    with torch.no_grad():
        forward = milliseconds(lambda: function(*leaves))
    both = milliseconds(lambda: torch.autograd.grad(function(*leaves), leaves, seed))
    return forward, both


def normal(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def fla_functions(folder):
    """name -> (function, its inputs for B, T); the functions of flash-linear-attention."""
    if folder:
        sys.path.insert(0, folder)
    try:
        from fla.ops.gla import chunk_gla
        from fla.ops.linear_attn import chunk_linear_attn
        from fla.ops.simple_gla import chunk_simple_gla
    except ImportError as error:
        print(f"flash-linear-attention is left out: {error}")
        return {}
    qkv = lambda B, T: [normal(B, T, HEADS, SIZE) for _ in range(3)]
    return {
        "fla chunk_gla": (lambda q, k, v, g: chunk_gla(q, k, v, g)[0],
                          lambda B, T: qkv(B, T) + [F.logsigmoid(normal(B, T, HEADS, SIZE))]),
        "fla chunk_simple_gla": (lambda q, k, v, g: chunk_simple_gla(q, k, v, g=g)[0],
                                 lambda B, T: qkv(B, T) + [F.logsigmoid(normal(B, T, HEADS)).float()]),
        "fla chunk_linear_attn": (lambda q, k, v: chunk_linear_attn(q, k, v, normalize=False)[0], qkv),
    }


def flash_attention(q, k, v):
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def bench(program, what, sizes, *options):
    """The report of `regla bench` with these settings."""
    command = [program, "bench", what, "--device", "cuda", "--json", "--set", "precision=bf16", *sizes, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    require(done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def tune_briefly(share=0, shares=1):
    """Has Triton's tuner try every `shares`-th configuration from `share` on, for 15 ms each; where
    there are several shares, just once: what is compiled stays on the disk for who comes later."""
    from triton.runtime.autotuner import Autotuner
    from triton.testing import do_bench

    bench, numbers = Autotuner._bench, itertools.count()

    def try_once(call, quantiles):
        call()
        return [1.0] * 3

    def bench_share(tuner, *args, **settings):
        tuner._do_bench = try_once if shares > 1 else (
            lambda call, quantiles: do_bench(call, warmup=3, rep=15, quantiles=quantiles))
        return bench(tuner, *args, **settings) if next(numbers) % shares == share else [float("inf")] * 3

    Autotuner._bench = bench_share


def compile_share(arguments):
    """What one of several processes does: runs each function of fla once."""
    tune_briefly(*arguments.share)
    for name, (function, inputs_of) in fla_functions(arguments.fla).items():
        for T in arguments.lengths if name.startswith(tuple(arguments.only)) else ():
            leaves = [x.requires_grad_() for x in inputs_of(arguments.tokens // T, T)]
            try:
                y = function(*leaves)
                torch.autograd.grad(y, leaves, torch.randn_like(y))
            except Exception:  # the one that measures will say so
                break


def compile_together(arguments):
    """Starts to fill Triton's cache, by a process for each processor but this one's."""
    shares = max(2, len(os.sched_getaffinity(0)) - 1)
    words = [sys.executable, __file__, "compile", "--tokens", str(arguments.tokens),
             "--lengths", *map(str, arguments.lengths), "--only", *arguments.only]
    words += ["--fla", arguments.fla] if arguments.fla else []
    return [subprocess.Popen([*words, "--share", str(share), str(shares)], stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL) for share in range(shares)]


def our_recurrences(arguments, names, lengths):
    """(name, T) -> milliseconds forward, and forward and backward, of our recurrences."""
    sizes = [f"hidden={HEADS * SIZE}", f"heads={HEADS}"]
    times = {}
    for ours in names:
        report = bench(arguments.program, "recurrences", sizes, "--longest", str(arguments.tokens),
                       "--repeats", "5", "--only", ours)
        rows = {row["name"]: 1e3 * row["median_s"] for row in report["results"]}
        for T in lengths:
            times["regla " + ours, T] = tuple(rows[f"{ours} T={T} {which}"] for which in ("forward", "both"))
    return times


def recurrences(arguments):
    os.environ.setdefault("FLA_CACHE_RESULTS", "0")  # timings of a part would be taken for all
    print_limits("before")
    lengths = arguments.lengths = [T for T in arguments.lengths if arguments.tokens % T == 0]
    wanted = [name for name in PEERS if name.startswith(tuple(arguments.only))]
    times = {}  # (name, T) -> forward, both
    if arguments.program:
        ours = dict.fromkeys(ours for name in wanted for ours in PEERS[name])
        times |= our_recurrences(arguments, ours, lengths)
    functions = {"PyTorch flash attention": (
        flash_attention, lambda B, T: [normal(B, HEADS, T, SIZE) for _ in range(3)])}
    if any(name.startswith("fla") for name in wanted):
        running = compile_together(arguments)
        functions |= fla_functions(arguments.fla)
        for process in running:
            process.wait()
        tune_briefly()
    for name in wanted:
        for T in lengths if name in functions else ():
            function, inputs_of = functions[name]
            try:
                times[name, T] = forward_and_both(function, inputs_of(arguments.tokens // T, T))
            except Exception as error:  # some refuse a pass on some cards, with a reason
                print(f"{name} at T={T}: {str(error).splitlines()[0][:150]}")
                break
    print(f"{arguments.tokens} tokens, H {HEADS}, K = V = {SIZE}, bf16: forward / forward and backward, ms")
    print(f"{'':40}" + "".join(f"{f'T={T}':>17}" for T in lengths))
    for name in dict.fromkeys(name for name, _ in times):
        cells = [times.get((name, T)) for T in lengths]
        print(f"{name:40}" + "".join(f"{f'{c[0]:.3f} / {c[1]:.3f}' if c else '-':>17}" for c in cells))
    for name, ours in ((name, ours) for name in wanted for ours in PEERS[name]):
        pairs = [(times.get((name, T)), times.get(("regla " + ours, T))) for T in lengths]
        if any(a and b for a, b in pairs):
            print(f"{f'{name} over {ours}':40}" + "".join(
                f"{f'{a[0] / b[0]:.2f} / {a[1] / b[1]:.2f}' if a and b else '-':>17}" for a, b in pairs))
    print_limits("after")


def pytorch_update(config, compiled):
    torch.manual_seed(0)
    model = Decoder(config).cuda()
    optimizer = adamw(list(model.named_parameters()), config)
    loss = lambda ids, targets: loss_of(model, ids, targets)
    if compiled:
        loss = torch.compile(loss)
    B, T = config["batch_size"], config["sequence_length"]
    text = torch.randint(config["vocab"], (4, B, T + 1), device="cuda")
    steps = iter(range(10**9))

    def update():
        ids = text[next(steps) % 4]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            value = loss(ids[:, :-1], ids[:, 1:])
        value.backward()
        if config["grad_clip"] > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config["grad_clip"])
        optimizer.step()

    return update


def train(arguments):
    print_limits("before")
    config = {**read_config(arguments.config), "batch_size": arguments.batch,
              "sequence_length": arguments.length, "mixer": "softmax"}
    tokens = arguments.batch * arguments.length
    rates = {}
    for which in ("eager", "compiled"):
        if not which.startswith(tuple(arguments.only)):
            continue
        torch.cuda.reset_peak_memory_stats()
        update = pytorch_update(config, which == "compiled")
        seconds = milliseconds(update, arguments.repeats) / 1e3
        rates[f"PyTorch softmax, {which}"] = tokens / seconds, torch.cuda.max_memory_allocated() / 2**30
        del update
        torch.cuda.empty_cache()
    if arguments.program:
        settings = [f"batch_size={arguments.batch}", f"sequence_length={arguments.length}",
                    "activation_checkpointing=none"]  # PyTorch keeps all activations, too
        mixer = json.loads(Path(arguments.config).read_text()).get("mixer", "regla")
        named = mixer if isinstance(mixer, str) else mixer["type"]
        for which, mixer in ((named, []), ("softmax", ["mixer=softmax"])):
            if not which.startswith(tuple(arguments.only)):
                continue
            row = bench(arguments.program, "train", settings + mixer, "--config", arguments.config,
                        "--repeats", str(arguments.repeats))["results"][0]
            rates[f"regla {which}"] = row["tokens_per_s"], row["peak_memory_bytes"] / 2**30
    print(f"updates of {tokens} tokens ({arguments.batch} x {arguments.length}), dropout {config['dropout']}, bf16")
    base = rates.get("PyTorch softmax, compiled")
    for name, (rate, memory) in rates.items():
        ratio = f"{rate / base[0]:8.2f} x PyTorch compiled" if base else ""
        print(f"{name:28}{rate:12,.0f} tokens/s{memory:8.1f} GiB{ratio}")
    print_limits("after")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    part = commands.add_parser("recurrences")
    worker = commands.add_parser("compile")  # what `recurrences` starts
    worker.add_argument("--share", type=int, nargs=2, required=True)
    worker.set_defaults(run=compile_share)
    for command in (part, worker):
        command.add_argument("--fla", help="a folder that holds the package `fla`")
        command.add_argument("--tokens", type=int, default=32768)
        command.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="of the segments")
        command.add_argument("--only", nargs="+", default=[""], help="peers whose names begin so")
    part.set_defaults(run=recurrences)
    whole = commands.add_parser("train")
    whole.add_argument("--config", default="configs/bench/160m_regla.json")
    whole.add_argument("--batch", type=int, default=8)
    whole.add_argument("--length", type=int, default=2048)
    whole.add_argument("--only", nargs="+", default=[""],
                       help="beginnings of what to time: eager, compiled, the mixer, softmax")
    whole.add_argument("--repeats", type=int, default=10, help="timed updates of each")
    whole.set_defaults(run=train)
    for command in (part, whole):
        command.add_argument("--program", help="a build of regla with CUDA; without it only the peers")
    arguments = parser.parse_args()
    require(torch.cuda.is_available(), "PyTorch finds no GPU")
    arguments.run(arguments)


if __name__ == "__main__":
    main()
