#!/usr/bin/env python3
"""Linearises a softmax teacher to the rows of the paper's Table 4 by both protocols.

    benchmarks/linearise.py --data PATH [--out runs/linearise] [--program build/release/app/regla]
                            [--device cpu] [--jobs 1] [--steps 1000] [--teacher-steps 3000]
                            [--seeds 1]

Trains the teacher (configs/wikitext2-cpu.json with softmax attention), then, for every row and seed
and with as many tokens each, a model from scratch, one linearised by the protocol `paper` and one
by `distil` (configs/wikitext2-distil.json, its stages in proportion to --steps). Prints what each
scores as a table, means over the seeds, and writes all to results.json in the output folder.

Whatever is there already is not done again, and a training that was interrupted goes on, so the
same call can be repeated. --jobs trains several models at once: a GPU has room for many of this
size. --set reaches every training, as that of `regla train` does.
"""
import argparse
import concurrent.futures
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# What a row is called, and its mixer; the hybrid has it in every second layer.
ROWS = {"linear_relu": ("LA w/ ReLU", {"type": "linear_relu"}),
        "linear_elu": ("LA w/ ELU", {"type": "linear_elu", "sum_norm": False, "norm": "rms"}),
        "hedgehog": ("HedgeHog", {"type": "hedgehog"}),
        "fast_decay": ("LA w/ Fast Decay", {"type": "fast_decay"}),
        "gla": ("GLA", {"type": "gla"}),
        "delta_net": ("DeltaNet", {"type": "delta_net"}),
        "regla": ("ReGLA", {"type": "regla"}),
        "hybrid": ("Hybrid ReGLA", {"type": "regla"})}
for _, mixer in ROWS.values():
    mixer["rope"] = "full"  # as the teacher's, and as in the paper
GATED = ("fast_decay", "gla", "regla")
KINDS = ("scratch", "paper", "distil")


def arguments_given():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=pathlib.Path, help="folder with WikiText-2")
    parser.add_argument("--out", default="runs/linearise", type=pathlib.Path)
    parser.add_argument("--program", default="build/release/app/regla")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="models trained at once")
    parser.add_argument("--steps", type=int, default=1000, help="of each student")
    parser.add_argument("--teacher-steps", type=int, default=3000)
    parser.add_argument("--rows", default=",".join(ROWS), help="of " + ", ".join(ROWS))
    parser.add_argument("--kinds", default=",".join(KINDS), help="of " + ", ".join(KINDS))
    parser.add_argument("--scratch-rate", type=float, default=0.004,
                        help="learning rate of models from scratch")
    parser.add_argument("--paper-rate", type=float, default=0.004,
                        help="learning rate of the protocol paper")
    parser.add_argument("--gate-bias", type=float, default=0.0, help="of gates by the protocol "
                        "distil; open gates, regla linearise's own 4, are slower to learn here")
    parser.add_argument("--seeds", type=int, default=1, help="students of each kind")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    return parser.parse_args()


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.out = arguments.out
        self.teacher = self.out / "teacher"
        (self.out / "configs").mkdir(parents=True, exist_ok=True)
        # Alone, so that nothing is scored while models are trained.
        self.text = self.out / "text"
        self.text.mkdir(exist_ok=True)
        for path in arguments.data.glob("*.train.*"):
            if not (self.text / path.name).exists():
                (self.text / path.name).symlink_to(path.resolve())

    def regla(self, *words):
        """What the program prints; a failure ends this script with the program's own line."""
        command = [self.arguments.program, *map(str, words)]
        done = subprocess.run(command, text=True, capture_output=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        return done.stdout

    def config(self, name, source, **changed):
        """A configuration file with some keys changed."""
        keys = json.loads((ROOT / "configs" / source).read_text())
        keys.update(changed)
        path = self.out / "configs" / f"{name}.json"
        path.write_text(json.dumps(keys, indent=2) + "\n")
        return path

    def train(self, run, config, is_new):
        """Trains to the end, from wherever the run stands."""
        state = run / "state.json"
        begun = state.exists() and json.loads(state.read_text())["text"] != ""
        words = ["train", "--out", run, "--data", self.text, "--device",
                 self.arguments.device]
        if begun or not is_new:
            words += ["--resume"]
        if not begun:
            words += ["--config", config]
            if self.arguments.set:
                words += ["--set", *self.arguments.set]
        self.regla(*words)

    def score(self, name, run, *more):
        """Of both splits, once."""
        path = self.out / "scores" / f"{name}.json"
        if not path.exists():
            scores = {split: json.loads(self.regla("eval", run, "--data", self.arguments.data,
                                                   "--split", split, "--device",
                                                   self.arguments.device, "--json", *more))
                      for split in ("valid", "test")}
            path.parent.mkdir(exist_ok=True)
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(scores, indent=2) + "\n")
            os.replace(temporary, path)
        return json.loads(path.read_text())

    def make_teacher(self):
        config = self.config("teacher", "wikitext2-cpu.json", mixer="softmax", eval_every=0,
                             steps=self.arguments.teacher_steps)
        self.train(self.teacher, config, True)
        return self.score("teacher", self.teacher)

    def linearise(self, run, row, protocol, seed):
        """The row's mixer in place of the teacher's, unless that was done before."""
        if (run / "latest").exists():
            return
        keys = dict(ROWS[row][1])
        mixer, layers = keys.pop("type"), "alternate" if row == "hybrid" else "all"
        words = ["linearise", self.teacher, "--mixer", mixer, "--layers", layers,
                 "--protocol", protocol, "--out", run, "--seed", seed]
        if protocol == "distil" and mixer in GATED:
            keys["gate_bias"] = self.arguments.gate_bias
        if keys:
            words += ["--set", *(f"{key}={json.dumps(value)}" for key, value in keys.items())]
        self.regla(*words)

    def make_student(self, row, kind, seed):
        begin = time.time()
        name, steps = f"{row}-{kind}-{seed}", self.arguments.steps
        run = self.out / name
        if kind == "scratch":
            mixer = ROWS[row][1]
            if row == "hybrid":
                mixer = ["softmax", mixer] * 2
            config = self.config(name, "wikitext2-cpu.json", steps=steps, eval_every=0, seed=seed,
                                 mixer=mixer, learning_rate=self.arguments.scratch_rate,
                                 tokenizer=str(self.teacher / "tokenizer.json"))
        elif kind == "paper":
            keys = json.loads((ROOT / "configs/wikitext2-cpu.json").read_text())
            course = {key: keys[key] for key in ("schedule", "warmup_steps", "final_learning_rate",
                                                 "batch_size", "log_every", "checkpoint_every")}
            config = self.config(name, "wikitext2-distil.json", steps=steps, stages=[], teacher="",
                                 seed=seed, learning_rate=self.arguments.paper_rate, **course)
        else:
            keys = json.loads((ROOT / "configs/wikitext2-distil.json").read_text())
            for stage in keys["stages"]:
                stage["steps"] = max(1, stage["steps"] * steps // keys["steps"])
            config = self.config(name, "wikitext2-distil.json", steps=steps, seed=seed,
                                 stages=keys["stages"], teacher=str(self.teacher))
        if kind != "scratch":
            self.linearise(run, row, kind, seed)
        self.train(run, config, kind == "scratch")
        scores = self.score(name, run)
        if row == "hybrid":
            self.score(name + "-without-softmax", run, "--without-softmax-layers")
        print(f"{name}: test loss {scores['test']['loss']:.4f}, {time.time() - begin:.0f} s",
              file=sys.stderr, flush=True)
        return scores


def table(teacher, scores, rows, kinds, seeds):
    """Loss per token of the test split, its spread over the seeds, and the share of the teacher's
    gain over the row from scratch."""
    def losses(row, kind):
        return [scores[row, kind, seed]["test"]["loss"] for seed in seeds]

    best = teacher["test"]

    def cell(row, kind):
        loss = statistics.mean(losses(row, kind))
        spread = f" ± {statistics.stdev(losses(row, kind)):.3f}" if len(seeds) > 1 else ""
        if kind == "scratch" or "scratch" not in kinds:
            return f"{loss:.3f}{spread}"
        scratch = statistics.mean(losses(row, "scratch"))
        return f"{loss:.3f}{spread} ({(scratch - loss) / (scratch - best['loss']):.0%})"

    def perplexity(row, kind):
        return f"{math.exp(statistics.mean(losses(row, kind))):.1f}"

    lines = ["| | " + " | ".join(kinds) + " | perplexity: " + ", ".join(kinds) + " |",
             "| --- |" + " --- |" * (len(kinds) + 1)]
    lines.append(f"| teacher | {best['loss']:.3f} |" + " |" * (len(kinds) - 1) +
                 f" {best['ppl']:.1f} |")
    for row in rows:
        lines.append(f"| {ROWS[row][0]} | " + " | ".join(cell(row, kind) for kind in kinds) +
                     " | " + ", ".join(perplexity(row, kind) for kind in kinds) + " |")
    return "\n".join(lines)


def main():
    arguments = arguments_given()
    bench = Bench(arguments)
    rows, kinds = arguments.rows.split(","), arguments.kinds.split(",")
    seeds = range(arguments.seeds)
    teacher = bench.make_teacher()
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        asked = {(row, kind, seed): pool.submit(bench.make_student, row, kind, seed)
                 for seed in seeds for row in rows for kind in kinds}
    scores = {key: future.result() for key, future in asked.items()}
    results = {"teacher": teacher, **{"-".join(map(str, key)): score for key, score in scores.items()}}
    (arguments.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(table(teacher, scores, rows, kinds, seeds))


if __name__ == "__main__":
    main()
