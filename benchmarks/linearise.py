#!/usr/bin/env python3
"""Linearises a softmax teacher to the rows of the paper's Table 4 by both protocols.

    benchmarks/linearise.py --data PATH [--out runs/linearise] [--program build/release/app/regla]
                            [--device cpu] [--jobs 1] [--steps 1000] [--teacher-steps 3000]

Trains the teacher (configs/wikitext2-cpu.json with softmax attention), then, for every row and with
as many tokens each, a model from scratch (configs/tables), one linearised by the protocol `paper`
and one by `distil` (configs/wikitext2-distil.json, its stages in proportion to --steps). Prints
what each scores as a table, and writes it to results.json in the output folder.

Whatever is there already is not done again, and a training that was interrupted goes on, so the
same call can be repeated. --jobs trains several models at once: a GPU has room for many of this
size. --set reaches every training, as that of `regla train` does.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROWS = {"linear_relu": "LA w/ ReLU", "linear_elu": "LA w/ ELU", "hedgehog": "HedgeHog",
        "fast_decay": "LA w/ Fast Decay", "regla": "ReGLA", "hybrid": "Hybrid ReGLA"}
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
    parser.add_argument("--paper-rate", type=float, default=0.002,
                        help="learning rate of the protocol paper")
    parser.add_argument("--gate-bias", type=float, help="of gates by the protocol distil, if it is "
                        "not to be that of regla linearise")
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

    def linearise(self, run, row, protocol):
        """The row's mixer in place of the teacher's, unless that was done before."""
        if (run / "latest").exists():
            return
        mixer = json.loads((ROOT / f"configs/tables/table4_{row}.json").read_text())["mixer"]
        layers = "alternate" if isinstance(mixer, list) else "all"
        keys = mixer if isinstance(mixer, dict) else {"type": mixer[1] if layers != "all" else mixer}
        words = ["linearise", self.teacher, "--mixer", keys.pop("type"), "--layers", layers,
                 "--protocol", protocol, "--out", run]
        if protocol == "distil" and self.arguments.gate_bias is not None:
            keys["gate_bias"] = self.arguments.gate_bias
        if keys:
            words += ["--set", *(f"{key}={json.dumps(value)}" for key, value in keys.items())]
        self.regla(*words)

    def make_student(self, row, kind):
        begin = time.time()
        name, steps = f"{row}-{kind}", self.arguments.steps
        run = self.out / name
        if kind == "scratch":
            config = self.config(name, f"tables/table4_{row}.json", steps=steps, eval_every=0,
                                 learning_rate=self.arguments.scratch_rate,
                                 tokenizer=str(self.teacher / "tokenizer.json"))
        elif kind == "paper":
            keys = json.loads((ROOT / "configs/wikitext2-cpu.json").read_text())
            course = {key: keys[key] for key in ("schedule", "warmup_steps", "final_learning_rate",
                                                 "batch_size", "log_every", "checkpoint_every")}
            config = self.config(name, "wikitext2-distil.json", steps=steps, stages=[], teacher="",
                                 learning_rate=self.arguments.paper_rate, **course)
        else:
            keys = json.loads((ROOT / "configs/wikitext2-distil.json").read_text())
            for stage in keys["stages"]:
                stage["steps"] = max(1, stage["steps"] * steps // keys["steps"])
            config = self.config(name, "wikitext2-distil.json", steps=steps,
                                 stages=keys["stages"], teacher=str(self.teacher))
        if kind != "scratch":
            self.linearise(run, row, kind)
        self.train(run, config, kind == "scratch")
        scores = self.score(name, run)
        if row == "hybrid":
            self.score(name + "-without-softmax", run, "--without-softmax-layers")
        print(f"{name}: test loss {scores['test']['loss']:.4f}, {time.time() - begin:.0f} s",
              file=sys.stderr, flush=True)
        return scores


def table(teacher, scores, rows, kinds):
    """Loss per token and, behind it, the share of the teacher's gain over the row from scratch."""
    def cell(row, kind):
        loss = scores[row, kind]["test"]["loss"]
        if kind == "scratch" or "scratch" not in kinds:
            return f"{loss:.3f}"
        scratch, best = scores[row, "scratch"]["test"]["loss"], teacher["test"]["loss"]
        return f"{loss:.3f} ({(scratch - loss) / (scratch - best):.0%})"

    lines = ["| | " + " | ".join(kinds) + " | perplexity: " + ", ".join(kinds) + " |",
             "| --- |" + " --- |" * (len(kinds) + 1)]
    best = teacher["test"]
    lines.append(f"| teacher | {best['loss']:.3f} |" + " |" * (len(kinds) - 1) +
                 f" {best['ppl']:.1f} |")
    for row in rows:
        lines.append(f"| {ROWS[row]} | " + " | ".join(cell(row, kind) for kind in kinds) + " | " +
                     ", ".join(f"{scores[row, kind]['test']['ppl']:.1f}" for kind in kinds) + " |")
    return "\n".join(lines)


def main():
    arguments = arguments_given()
    bench = Bench(arguments)
    rows, kinds = arguments.rows.split(","), arguments.kinds.split(",")
    teacher = bench.make_teacher()
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        asked = {(row, kind): pool.submit(bench.make_student, row, kind)
                 for row in rows for kind in kinds}
    scores = {key: future.result() for key, future in asked.items()}
    results = {"teacher": teacher, **{"-".join(key): score for key, score in scores.items()}}
    (arguments.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(table(teacher, scores, rows, kinds))


if __name__ == "__main__":
    main()
