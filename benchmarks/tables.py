#!/usr/bin/env python3
"""Trains every file of configs/tables and prints their validation losses as a table.

    benchmarks/tables.py --data PATH [--out runs/tables] [--program build/release/app/regla]

A run that is there already is not trained again, so an interrupted call can be repeated. Two files
that mean the same configuration are trained once.
"""
import argparse
import json
import pathlib
import subprocess

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs" / "tables"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with WikiText-2")
    parser.add_argument("--out", default="runs/tables", type=pathlib.Path)
    parser.add_argument("--program", default="build/release/app/regla")
    parser.add_argument("--only", default="", help="files whose names begin so")
    arguments = parser.parse_args()

    def regla(*words):
        return subprocess.run([arguments.program, *map(str, words)], check=True, text=True,
                              stdout=subprocess.PIPE).stdout

    # Files that say the same in other words, by what the program makes of them.
    groups = {}
    for file in sorted(CONFIGS.glob(arguments.only + "*.json")):
        meaning = json.loads(regla("inspect", "--config", file, "--json"))["configuration"]
        groups.setdefault(json.dumps(meaning, sort_keys=True), []).append(file)

    print("| file | parameters | loss per token | word perplexity | bits per byte |")
    print("| --- | --- | --- | --- | --- |")
    for same in groups.values():
        run = next((arguments.out / file.stem for file in same
                    if (arguments.out / file.stem).exists()), arguments.out / same[0].stem)
        if not run.exists():
            regla("train", "--config", same[0], "--data", arguments.data, "--out", run)
        score = json.loads(regla("eval", run, "--data", arguments.data, "--split", "valid",
                                 "--json"))
        count = json.loads(regla("inspect", run, "--json"))["parameters"]["total"]
        names = ", ".join(f"`{file.stem}`" for file in same)
        print(f"| {names} | {count:,} | {score['loss']:.3f} | {score['word_ppl']:.0f} | "
              f"{score['bits_per_byte']:.3f} |", flush=True)


if __name__ == "__main__":
    main()
