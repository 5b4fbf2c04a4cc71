#!/usr/bin/env python3
"""Draws the validation curves of runs, next to the count models, as an SVG (needs gnuplot).

    benchmarks/plot_curve.py --out docs/wikitext2.svg --line "bigram counts=1.70" ReGLA=runs/regla softmax=runs/softmax
"""
import argparse
import json
import pathlib
import subprocess


def curve(run):
    """Millions of tokens and bits per byte of the periodic validations. Where those are on
    `eval_batches` of the split, the last, which is on all of it, is no point of the same curve."""
    rows = [json.loads(line) for line in open(pathlib.Path(run) / "metrics.jsonl")]
    points = [(row["tokens"] / 1e6, row["bits_per_byte"]) for row in rows if "split" in row]
    config = json.load(open(pathlib.Path(run) / "config.json"))
    return points[:-1] if config["eval_batches"] else points


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--line", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    arguments = parser.parse_args()

    script = ["set terminal svg size 720,400 font 'sans,13' background 'white'",
              f"set output '{arguments.out}'", "set xlabel 'million tokens'",
              "set ylabel 'validation bits per byte'", "set grid ytics lc rgb '#dddddd'",
              "set key top right", "set border 3", "set tics nomirror"]
    plots = []
    colours = ["#c1440e", "#1f5fa8", "#2e7d32", "#6a3d9a"]
    for colour, run in zip(colours, arguments.runs):
        name, path = run.split("=", 1)
        data = "\n".join(f"{x} {y}" for x, y in curve(path))
        block = f"$data{len(plots)}"
        script.append(f"{block} << EOD\n{data}\nEOD")
        plots.append(f"{block} using 1:2 with linespoints lw 2 pt 7 ps 0.5 lc rgb '{colour}' title '{name}'")
    for line in arguments.line:
        name, value = line.split("=", 1)
        plots.append(f"{value} with lines dt 2 lw 1.5 lc rgb '#777777' title '{name}'")
    script.append("plot " + ", ".join(plots))
    subprocess.run(["gnuplot"], input="\n".join(script), text=True, check=True)


if __name__ == "__main__":
    main()
