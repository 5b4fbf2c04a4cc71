#!/usr/bin/env python3
"""How fast texts become ids here and in Hugging Face's package `tokenizers`, in one run.

    benchmarks/tokenizer_speed.py --tokenizer tokenizer.json --text FILE [--program build/release/app/regla]
                                  [--repeats 5]

Both get the same text, the program as one file, the package in whichever is faster of one text and
a batch of its lines; both on one thread. What counts is processor time, the least of the repeats;
for the program it is that of the command less that of the same with an empty text, so that reading
tokenizer.json is not in it, and printing the ids is. The ids are compared first.
"""
import argparse
import os
import resource
import subprocess
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"


def encoded(arguments, path):
    """The ids of a file, and the processor time that they took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run([arguments.program, "tokenizer", "encode", "--tokenizer",
                          arguments.tokenizer, "--file", path], check=True,
                         stdout=subprocess.PIPE).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (list(map(int, out.split())),
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def package_time(encode):
    begin = time.process_time()
    encode()
    return time.process_time() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--program", default="build/release/app/regla")
    parser.add_argument("--repeats", default=5, type=int)
    arguments = parser.parse_args()
    import tokenizers

    text = open(arguments.text, encoding="utf-8", newline="").read()
    lines = text.splitlines(keepends=True)
    package = tokenizers.Tokenizer.from_file(arguments.tokenizer)
    package.encode_special_tokens = True  # as data is read here
    ways = {"one text": lambda: package.encode(text, add_special_tokens=False),
            "lines": lambda: package.encode_batch(lines, add_special_tokens=False)}
    ids, _ = encoded(arguments, arguments.text)
    same = ids == package.encode(text, add_special_tokens=False).ids
    ours, theirs = [], {way: [] for way in ways}
    with tempfile.NamedTemporaryFile() as empty:
        for _ in range(arguments.repeats):
            ours.append(encoded(arguments, arguments.text)[1] - encoded(arguments, empty.name)[1])
            for way, encode in ways.items():
                theirs[way].append(package_time(encode))
    megabytes = len(text.encode()) / 1e6
    print(f"{megabytes:.1f} MB, {len(ids):,} ids, {'the same' if same else 'OTHER IDS'}")
    print(f"regla: {megabytes / min(ours):.1f} MB per second of processor time")
    for way, times in theirs.items():
        print(f"tokenizers {tokenizers.__version__}, {way}: {megabytes / min(times):.1f} MB")
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
