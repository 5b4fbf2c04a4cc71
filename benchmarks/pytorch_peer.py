#!/usr/bin/env python3
"""Measures the decoder of regla in PyTorch, with the configurations and the fields of `regla bench
--json`. Every run checks the chunked recurrence against the naive one in float64 first.

    pytorch_peer.py train --config configs/bench/small_regla.json [--compile] [--chunk C]
    pytorch_peer.py recurrence                  forward and backward, B*H = 32, T = 512, K = V = 64
    pytorch_peer.py check RUN --program build/release/app/regla     logits of a run, beside regla's
"""

import argparse
import ctypes
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from pytorch_model import Decoder, Regla, chunked_recurrence, naive_recurrence  # noqa: E402

IMPORT_MEMORY = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
CHUNKS = (8, 16, 32)  # tried when none is given
ONLY = {"tie_embeddings": False, "parallel_residual": False, "gelu": "erf", "precision": "fp32",
        "micro_batches": 1, "layer_norm_epsilon": 1e-5, "carry_state": False,
        "reset_at_documents": False, "schedule": "constant"}
ONLY_MIXER = {"regla": {"feature_map": "safe_exp", "rope_base": 10000, "key_max": "running",
                        "score_scale": "variance", "gate": "refined",
                        "gate_axis": "value", "gate_projection": "full", "gate_temperature": 1,
                        "write_gate": False, "sum_norm": False, "norm": "rms",
                        "norm_epsilon": 1e-30, "output_gate": "none"},
              "softmax": {"rope_base": 10000, "window": 0}}


def keep_memory():
    """Has glibc keep what is freed instead of giving large blocks back to the system each time, the
    advice of PyTorch's tuning guide for CPUs (there with another malloc)."""
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(-4, 0)  # M_MMAP_MAX
    libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def require(condition, message):
    if not condition:
        sys.exit(f"pytorch_peer: error: {message}")


def read_config(path):
    """A configuration of regla; whatever the peer has no code for is refused."""
    defaults = {"batch_size": 8, "layers": 12, "hidden": 768, "heads": 12, "mlp": 0, "vocab": 0,
                "mixer": "regla", "dropout": 0.1, "sequence_length": 2048, "learning_rate": 2e-4,
                "weight_decay": 0.01, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8,
                "grad_clip": 1.0, "threads": 0}
    given = json.loads(Path(path).read_text())
    for key, value in ONLY.items():
        require(given.get(key, value) == value, f"{path}: only {key} = {value} is written here")
    c = {key: given.get(key, value) for key, value in defaults.items()}
    c["mlp"] = c["mlp"] or 4 * c["hidden"]
    require(c["vocab"] > 0, f"{path}: expected the key vocab")
    mixer = c["mixer"] if isinstance(c["mixer"], dict) else {"type": c["mixer"]}
    c["mixer"], c["chunk"] = mixer.get("type", "regla"), 0
    require(c["mixer"] in ONLY_MIXER, f"{path}: expected the mixer regla or softmax")
    for key, value in ONLY_MIXER[c["mixer"]].items():
        require(mixer.get(key, value) == value, f"{path}: only mixer.{key} = {value} is written here")
    # Softmax attention has no `none` here, ReGLA no `partial`; this is what `auto` stands for.
    unsaid = {"regla": "none", "softmax": "full"}[c["mixer"]]
    c["rope"] = mixer.get("rope", "auto").replace("auto", unsaid)
    require(c["rope"] in {"full", unsaid}, f"{path}: mixer.rope = {c['rope']} is not written here")
    width = mixer.get("feature_dim", 0)
    require(width in (0, c["hidden"] // c["heads"]), f"{path}: expected feature_dim = hidden/heads")
    return c


def difference(a, b):
    return ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()


def with_gradients(function, inputs, seed):
    leaves = [x.clone().requires_grad_() for x in inputs]
    value = function(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves, seed.to(value.dtype))]


def recurrence_inputs(B, T, H, K, V, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    inputs = (torch.exp(0.5 * normal(B, T, H, K) - 1), torch.exp(0.5 * normal(B, T, H, K) - 1),
              normal(B, T, H, V), torch.nn.functional.logsigmoid(normal(B, T, H, V)),
              (normal(B, T, H) + 1.5).clamp(max=0))
    return [x.to(dtype) for x in inputs], normal(B, T, H, V).to(dtype)


def check_recurrence(chunk):
    """Values and gradients, with gates that forget everything among them."""
    inputs, seed = recurrence_inputs(2, 70, 3, 8, 16, torch.float64)
    inputs[3][:, ::9] = -120.0
    exact = with_gradients(naive_recurrence, inputs, seed)
    run = lambda *x: chunked_recurrence(*x, chunk)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        found = with_gradients(run, [x.to(dtype) for x in inputs], seed)
        worst = max(difference(a, b) for a, b in zip(found, exact))
        require(worst < tolerance, f"chunks of {chunk} in {dtype} differ by {worst}; no time is given")


def check_model(chunk):
    """The loss and its gradients with either form of the recurrence, in double."""
    config = {"hidden": 32, "heads": 2, "mlp": 64, "vocab": 50, "layers": 2, "mixer": "regla",
              "rope": "full", "dropout": 0.0, "sequence_length": 37, "chunk": chunk}
    torch.manual_seed(0)
    model = Decoder(config).double()
    ids = torch.randint(50, (2, 38))

    def gradients():
        loss = loss_of(model, ids[:, :-1], ids[:, 1:])
        return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]

    found = gradients()
    for layer in model.layers:
        layer.mixer.recurrence = naive_recurrence
    exact = gradients()
    # A gradient that is 0 but for rounding has no relative difference.
    scale = max(x.abs().max().item() for x in exact[1:])
    worst = max((a - b).abs().max().item() / scale for a, b in zip(found, exact))
    require(worst < 1e-9, f"the model in chunks of {chunk} differs by {worst}; no time is given")


def loss_of(model, ids, targets, precision="fp32"):
    """Under autocast products are of BF16 and the loss is computed in FP32, as PyTorch has it."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        scores = model(ids)
        return torch.nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten())


def timed(function, repeats):
    function()  # fills caches and allocators, compiles
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)


def row(name, seconds, tokens, flops):
    median = float(np.median(seconds))
    return {"name": name, "median_s": median,
            "quartiles_s": [float(np.quantile(seconds, q)) for q in (0.25, 0.75)],
            "fastest_s": seconds[0], "slowest_s": seconds[-1], "repeats": len(seconds),
            "tokens_per_s": tokens / median, "gflops": flops / median / 1e9,
            "peak_memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            "import_memory_bytes": IMPORT_MEMORY}


def adamw(parameters, config):
    """AdamW in its fastest form here; decay on the matrices only, as regla does."""
    def decays(name, p):
        return p.dim() == 2 and not name.startswith("embed_in") and not name.endswith("gain")
    groups = [{"params": [p for name, p in parameters if decays(name, p)],
               "weight_decay": config["weight_decay"]},
              {"params": [p for name, p in parameters if not decays(name, p)], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config["learning_rate"], eps=config["epsilon"],
                             betas=(config["beta1"], config["beta2"]), fused=True)


def update_of(config, compiled, precision):
    """A function that does one update on random tokens, and the operations per token."""
    torch.manual_seed(0)
    model = Decoder(config)
    optimizer = adamw(list(model.named_parameters()), config)
    forward = torch.compile(model) if compiled else model
    B, T = config["batch_size"], config["sequence_length"]
    text = torch.randint(config["vocab"], (4, B, T + 1))
    step = 0

    def update():
        nonlocal step
        ids = text[step % 4]
        step += 1
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(forward, ids[:, :-1], ids[:, 1:], precision)
        loss.backward()
        if config["grad_clip"] > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config["grad_clip"])
        optimizer.step()
        return loss.item()

    return update, model.training_flops_per_token()


def best_chunk(given, make):
    """The chunk with the fastest of three runs of `make(chunk)`, and what each took."""
    if given:
        return given, {}
    fastest = {chunk: timed(make(chunk), 3)[0] for chunk in CHUNKS}
    return min(fastest, key=fastest.get), fastest


def bench_train(arguments, config):
    sweep = {}
    if config["mixer"] == "regla":
        make = lambda chunk: update_of({**config, "chunk": chunk}, arguments.compile,
                                       arguments.precision)[0]
        config["chunk"], sweep = best_chunk(arguments.chunk, make)
        check_recurrence(config["chunk"])
        check_model(config["chunk"])
    update, flops = update_of(config, arguments.compile, arguments.precision)
    tokens = config["batch_size"] * config["sequence_length"]
    seconds = timed(update, arguments.repeats)
    return [row("update", seconds, tokens, tokens * flops)], config["chunk"], sweep


def bench_recurrence(arguments):
    B, T, H, K = 8, 512, 4, 64
    inputs, seed = recurrence_inputs(B, T, H, K, K)

    def make(chunk):
        function = lambda *x: chunked_recurrence(*x, chunk)
        function = torch.compile(function) if arguments.compile else function
        return lambda: with_gradients(function, inputs, seed)

    chunk, sweep = best_chunk(arguments.chunk, make)
    check_recurrence(chunk)
    seconds = timed(make(chunk), arguments.repeats)
    return [row("recurrence regla", seconds, B * T, 12 * B * T * H * K * K)], chunk, sweep


def sgemm_peak():
    a, b = torch.full((1536, 1536), 0.5), torch.full((1536, 1536), 0.5)
    c = torch.empty_like(a)
    return 2 * 1536**3 / timed(lambda: torch.mm(a, b, out=c), 10)[0] / 1e9


def read_safetensors(path):
    data = Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    types = {"F32": np.float32, "F64": np.float64}
    return {name: torch.from_numpy(np.frombuffer(
                data, types[entry["dtype"]], int(np.prod(entry["shape"])),
                8 + size + entry["data_offsets"][0]).reshape(entry["shape"]).copy())
            for name, entry in header.items()}


def check_run(arguments):
    """Scores of a run of regla by both programs."""
    config = {**read_config(Path(arguments.run) / "config.json"), "chunk": arguments.chunk or 16}
    model = Decoder(config).eval()
    with torch.no_grad():
        model.load_regla(read_safetensors(Path(arguments.run) / "model.safetensors"))
        ids = torch.randint(config["vocab"], (2, config["sequence_length"]))
        found = model(ids)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "ids.json").write_text(json.dumps(ids.tolist()))
        subprocess.run([arguments.program, "logits", arguments.run, "--ids", f"{folder}/ids.json",
                        "--out", f"{folder}/logits"], check=True)
        theirs = read_safetensors(f"{folder}/logits")["logits"]
    result = difference(found, theirs)
    print(json.dumps({"run": arguments.run, "mixer": config["mixer"], "logits": list(theirs.shape),
                      "max_difference_of_max": result}))
    require(result < 1e-4, f"the logits differ by {result}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("train", "recurrence", "check"):
        command = commands.add_parser(name)
        command.add_argument("--chunk", type=int, default=0, help="tokens of a chunk; 0: the fastest")
        if name == "check":
            command.add_argument("run")
            command.add_argument("--program", required=True)
            continue
        command.add_argument("--repeats", type=int, default=9)
        command.add_argument("--compile", action="store_true", help="with torch.compile")
        command.add_argument("--keep-memory", action="store_true", help="malloc returns nothing")
        if name == "train":
            command.add_argument("--config", required=True)
            command.add_argument("--precision", choices=("fp32", "bf16"), default="fp32",
                                 help="bf16: under torch.autocast")
    arguments = parser.parse_args()
    if arguments.command == "check":
        return check_run(arguments)
    config = read_config(arguments.config) if arguments.command == "train" else {"threads": 0}
    if arguments.keep_memory:
        keep_memory()
    threads = config["threads"] or int(os.environ.get("OMP_NUM_THREADS", 0)) or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    run = bench_train if config.get("mixer") else lambda a, _: bench_recurrence(a)
    before = sgemm_peak()
    results, chunk, sweep = run(arguments, config)
    print(json.dumps({"benchmark": arguments.command, "torch": torch.__version__,
                      "compiled": arguments.compile,
                      "precision": getattr(arguments, "precision", "fp32"),
                      "keep_memory": arguments.keep_memory, "python": platform.python_version(),
                      "threads": threads, "chunk": chunk, "sweep_s": sweep, "config": config,
                      "product_gflops": max(before, sgemm_peak()), "results": results}, indent=2))


if __name__ == "__main__":
    main()
