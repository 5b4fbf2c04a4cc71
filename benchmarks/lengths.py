#!/usr/bin/env python3
"""Trains small models on sequences of 512 tokens and scores them by position on longer ones.

    benchmarks/lengths.py --data PATH [--out runs/lengths] [--program build/release/app/regla]
                          [--device cuda --set precision=bf16 --jobs 6]

ReGLA, GLA and softmax attention, each with the rotation full, partial and none, from an empty state
for each sequence and with the state carried from one to the next: 18 runs of configs/lengths.json.
Softmax attention, whose cache has to end somewhere to be carried, is trained with a window of 512
there. Prints a table and draws OUT/lengths.svg (needs gnuplot). What is there already is not done
again and what was interrupted goes on, so the call can be repeated.
"""
import argparse
import concurrent.futures
import itertools
import json
import os
import pathlib
import shutil
import subprocess

CONFIG = pathlib.Path(__file__).resolve().parent.parent / "configs" / "lengths.json"
MIXERS = {"regla": "ReGLA", "gla": "GLA", "softmax": "softmax attention"}
ROTATIONS = ["full", "partial", "none"]


class Case:
    def __init__(self, mixer, rope, carried, seed):
        self.mixer, self.rope, self.carried, self.seed = mixer, rope, carried, seed
        self.name = f"{mixer}_{rope}{'_carried' if carried else ''}_{seed}"

    def keys(self, window):
        keys = [f"mixer={self.mixer}", f"mixer.rope={self.rope}", f"seed={self.seed}"]
        if self.carried:
            keys.append("carry_state=true")
            if self.mixer == "softmax":
                keys.append(f"mixer.window={window}")
        return keys


def cases(arguments):
    chosen = [Case(*one, seed) for seed in arguments.seeds
              for one in itertools.product(MIXERS, ROTATIONS, [False, True])]
    return [case for case in chosen if case.name.startswith(arguments.only)]


def regla(arguments, *words):
    environment = dict(os.environ)
    if arguments.jobs > 1:  # several at once share the processors
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // arguments.jobs))
    done = subprocess.run([arguments.program, *map(str, words)], text=True, env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, words))}\n{done.stderr}")
    return done.stdout


def training_loss(run):
    """The mean over the last tenth of the lines of metrics."""
    rows = [json.loads(line) for line in open(run / "metrics.jsonl")]
    losses = [row["loss"] for row in rows if "split" not in row]
    return mean(losses[-max(1, len(losses) // 10):])


def score(arguments, case, tokenizer):
    """The losses of a case in training and by position, trained and scored as far as they are not
    there."""
    run, result = arguments.out / case.name, arguments.out / f"{case.name}.lengths"
    where = ["--data", arguments.data, "--device", arguments.device]
    if not (result / "lengths.json").exists():
        if (run / "latest").is_symlink():
            regla(arguments, "train", *where, "--out", run, "--resume")
        else:
            window = json.loads(CONFIG.read_text())["sequence_length"]
            regla(arguments, "train", "--config", CONFIG, *where, "--out", run, "--set",
                  f"tokenizer={tokenizer}", *arguments.set, *case.keys(window))
        regla(arguments, "eval", run, *where, "--split", arguments.split, "--lengths",
              arguments.lengths, "--stride", arguments.stride, "--out", result)
    rows = json.loads((result / "lengths.json").read_text())["rows"]
    return [training_loss(run)] + [row["loss"] for row in rows]


def mean(losses):
    return sum(losses) / len(losses)


def draw(arguments, table):
    """A panel for each mixer: the loss of each case against the position."""
    script = ["set terminal svg size 1140,430 font 'sans,13' background 'white'",
              f"set output '{arguments.out / 'lengths.svg'}'", "set multiplot layout 1,3",
              "set logscale x 2", "set border 3", "set tics nomirror", "set xtics rotate by -45",
              "set xlabel 'tokens before, up to' offset 0,0.5", "set ylabel 'nats per token'",
              "set grid ytics lc rgb '#dddddd'", "set bmargin 8",
              "set key below center horizontal maxcols 2 samplen 2"]
    shown = [loss for losses in table.values() for loss in losses[1:]]
    script.append(f"set yrange [{min(shown) - 0.1}:{min(max(shown), min(shown) + 2.5) + 0.1}]")
    colours = dict(zip(ROTATIONS, ["#c04000", "#0060ad", "#2e8b57"]))
    for mixer, title in MIXERS.items():
        plots, blocks = [], []
        for (one, rope, carried), losses in table.items():
            if one != mixer:
                continue
            block = f"${mixer}_{rope}_{int(carried)}"
            points = "\n".join(f"{end} {loss}" for end, loss in zip(arguments.ends, losses[1:]))
            blocks.append(f"{block} << EOD\n{points}\nEOD")
            plots.append(f"{block} using 1:2 with linespoints lw 1.5 pt {6 if carried else 7} ps 0.6 "
                         f"dt {2 if carried else 1} lc rgb '{colours[rope]}' "
                         f"title '{rope}{', carried' if carried else ''}'")
        if plots:
            script += blocks + [f"set title '{title}'", "plot " + ", ".join(plots)]
    script.append("unset multiplot")
    subprocess.run(["gnuplot"], input="\n".join(script), text=True, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with WikiText-2")
    parser.add_argument("--out", default="runs/lengths", type=pathlib.Path)
    parser.add_argument("--program", default="build/release/app/regla")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", default=1, type=int, help="programs at once")
    parser.add_argument("--seeds", default=[0], nargs="*", type=int, help="of the runs of each case")
    parser.add_argument("--split", default="test")
    parser.add_argument("--lengths", default="128,256,512,1024,2048,4096,8192,16384")
    parser.add_argument("--stride", default=4096, type=int)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--only", default="", help="cases whose names begin so, as regla_full")
    arguments = parser.parse_args()
    arguments.ends = [int(end) for end in arguments.lengths.split(",")]
    arguments.out.mkdir(parents=True, exist_ok=True)

    tokenizer = arguments.out / "tokenizer.json"
    if not tokenizer.exists():
        regla(arguments, "tokenizer", "train", "--data", arguments.data, "--out", tokenizer)
    table = {}
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        chosen = cases(arguments)
        for case, losses in zip(chosen, pool.map(lambda c: score(arguments, c, tokenizer), chosen)):
            table.setdefault((case.mixer, case.rope, case.carried), []).append(losses)
    table = {case: [mean(losses) for losses in zip(*runs)] for case, runs in table.items()}

    print("| mixer | rotation | state in training | training | " +
          " | ".join(f"to {end:,}" for end in arguments.ends) + " |")
    print("| --- " * (4 + len(arguments.ends)) + "|")
    for (mixer, rope, carried), losses in table.items():
        print(f"| {MIXERS[mixer]} | {rope} | {'carried' if carried else 'empty'} | " +
              " | ".join(f"{loss:.3f}" for loss in losses) + " |")
    if shutil.which("gnuplot"):
        draw(arguments, table)


if __name__ == "__main__":
    main()
