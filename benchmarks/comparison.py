#!/usr/bin/env python3
"""Prints what compare.sh measured: comparison.py FOLDER PAIRS, where the folder holds a_<pair>.json
of regla and b_<pair>.json of PyTorch."""

import json
import sys
from pathlib import Path
from statistics import median


def main():
    folder, pairs = Path(sys.argv[1]), int(sys.argv[2])
    read = lambda side: [json.loads((folder / f"{side}_{i + 1}.json").read_text())
                         for i in range(pairs)]
    a, b = read("a"), read("b")
    value = lambda report, key: report["results"][0][key]
    regla, peer = a[0], b[0]
    how = "compiled" if peer["compiled"] else "eager"
    how += ", BF16 autocast" if peer["precision"] == "bf16" else ""
    chunk = f", chunks of {peer['chunk']}" if peer["chunk"] else ""
    kept = ", malloc keeps memory" if peer["keep_memory"] else ""
    print(f"{folder.name}: {value(regla, 'name')}")
    print(f"  {regla['processor']}, {regla['instruction_sets']}, threads {regla['threads']} "
          f"and {peer['threads']}")
    print(f"  A: regla {regla['version']} {regla['config']['precision']}   B: torch {peer['torch']} {how}{chunk}{kept}, "
          f"Python {peer['python']}")
    print(f"  {'pair':6}{'A tokens/s':>12}{'B tokens/s':>12}{'A / B':>8}{'A GFLOP/s':>12}"
          f"{'B GFLOP/s':>12}{'A sgemm':>10}{'B sgemm':>10}{'A MB':>8}{'B MB':>8}")
    rows = [[value(x, "tokens_per_s"), value(y, "tokens_per_s"),
             value(x, "tokens_per_s") / value(y, "tokens_per_s"), value(x, "gflops"),
             value(y, "gflops"), x["product_gflops"], y["product_gflops"],
             value(x, "peak_memory_bytes") / 1e6, value(y, "peak_memory_bytes") / 1e6]
            for x, y in zip(a, b)]
    for name, row in [*((str(i + 1), row) for i, row in enumerate(rows)),
                      ("median", [median(column) for column in zip(*rows)])]:
        print(f"  {name:6}{row[0]:12.0f}{row[1]:12.0f}{row[2]:8.2f}{row[3]:12.1f}{row[4]:12.1f}"
              f"{row[5]:10.1f}{row[6]:10.1f}{row[7]:8.0f}{row[8]:8.0f}")
    memory = [median(value(x, "peak_memory_bytes") for x in side) for side in (a, b)]
    bare = median(value(y, "import_memory_bytes") for y in b)
    print(f"  tokens/s of A over B, median of the pairs: {median(r[2] for r in rows):.2f}")
    print(f"  peak memory of A over B: {memory[0] / memory[1]:.2f}; without the {bare / 1e6:.0f} MB "
          f"of importing torch: {memory[0] / max(memory[1] - bare, 1):.2f}")


if __name__ == "__main__":
    main()
