#!/usr/bin/env python3
"""Compares the ids of random texts with those of Hugging Face's package `tokenizers`.

    tests/text/tokenizers_comparison.py PROGRAM TOKENIZER [--texts 100000] [--record FILE]

TOKENIZER is the tokenizer.json of GPT-NeoX. Behind the random texts comes one with each mark that
combines, as Python's tables know them. Every text that the two encode otherwise is counted; those
where only the order of marks differs, which normalisation form C fixes, are counted apart: there the
text that the ids stand for has to be Python's NFC. The tables of the package are older. `--record` writes a hash of the
package's ids of every thousand texts, which the C++ tests compare with theirs where there is no
Python. Exit code 77: the package is not installed.
"""
import argparse
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
import unicodedata

BLOCK = 1000
SEPARATOR = "<|padding|>"  # a special token, so that texts on both sides know nothing of each other
# (most, first, count): up to `most` characters, each one of `count` from `first` on. As in
# random_texts.h.
KINDS = [
    [(10, 0x61, 26)], [(10, 0x61, 26)], [(1, 0x41, 26), (6, 0x61, 26)], [(30, 0x20, 1)],
    [(6, 0x30, 10)], [(4, 0x21, 15)], [(4, 0x3A, 7)], [(3, 0x5B, 6)], [(3, 0x7B, 4)],
    [(3, 0, 0x20)], [(1, 0x7F, 0x22)], [(2, 0x2000, 0x30)], [(1, 0x3000, 0x40)],
    [(1, 0x61, 26), (4, 0x300, 0x70)], [(4, 0xC0, 0x180)], [(4, 0x391, 25), (1, 0x300, 0x46)],
    [(4, 0x410, 64)], [(4, 0x5D0, 27), (2, 0x5B0, 14)], [(4, 0x621, 26), (2, 0x64B, 8)],
    [(3, 0x915, 37), (1, 0x93C, 1), (1, 0x93E, 15)], [(2, 0x958, 8)], [(6, 0x4E00, 20902)],
    [(3, 0xAC00, 11172)], [(1, 0x1100, 19), (1, 0x1161, 21), (1, 0x11A7, 28)], [(2, 0xF71, 20)],
    [(2, 0x2120, 0x2F)], [(1, 0xFB1D, 0x33)], [(2, 0x1F600, 80)],
    [(1, 0x1F466, 4), (1, 0x1F3FB, 5), (1, 0x200D, 1), (1, 0x2764, 1), (1, 0xFE0F, 1)],
    [(2, 0x1F1E6, 26)], [(1, 0x1D15E, 7)], [(3, 0xE000, 64)], [(1, 0xFFF0, 14)],
    [(1, 0x10FFF0, 14)], [(2, 0x2070, 0x30)], [(2, 0x2160, 0x28)], [(3, 0x304B, 20), (1, 0x3099, 2)]]
WORDS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'RE", "<|endoftext|>", "<|endoftext",
         "|>", "<|pad", "\r\n", " \n", "  \n"]


class RandomTexts:
    def __init__(self):
        self.state = 20

    def below(self, count):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % count

    def next(self):
        text = ""
        for _ in range(1 + self.below(12)):
            kind = self.below(len(KINDS) + 4)
            if kind >= len(KINDS):
                text += WORDS[self.below(len(WORDS))]
                continue
            for most, first, count in KINDS[kind]:
                for _ in range(1 + self.below(most)):
                    text += chr(first + self.below(count))
        return text


def our_ids(arguments, texts, separator):
    """The ids of each text: all in one file, with a token between them."""
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        file.write(SEPARATOR.join(texts).encode())
        file.flush()
        out = subprocess.run([arguments.program, "tokenizer", "encode", "--tokenizer",
                              arguments.tokenizer, "--file", file.name, "--specials", "--json"],
                             stdout=subprocess.PIPE, check=True).stdout
    ids = [[]]
    for one in json.loads(out)["ids"]:
        if one == separator:
            ids.append([])
        else:
            ids[-1].append(one)
    return ids


def parts(text):
    """The characters of a text taken apart, in any order."""
    return sorted(unicodedata.normalize("NFD", text))


def hash_of(ids):
    lines = "".join(" ".join(map(str, one)) + "\n" for one in ids)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("tokenizer")
    parser.add_argument("--texts", default=100000, type=int)
    parser.add_argument("--record", type=pathlib.Path)
    arguments = parser.parse_args()
    try:
        import tokenizers
    except ImportError as error:
        print(f"skipped: {error}")
        sys.exit(77)

    package = tokenizers.Tokenizer.from_file(arguments.tokenizer)
    source = RandomTexts()
    texts = [source.next() for _ in range(arguments.texts)]
    texts += [f"a\u0301{chr(code)}\u0323" for code in range(0x300, 0x20000)
              if unicodedata.combining(chr(code))]
    theirs = [one.ids for one in package.encode_batch(texts, add_special_tokens=False)]
    ours = our_ids(arguments, texts, package.token_to_id(SEPARATOR))
    if len(ours) != len(texts):
        sys.exit(f"{len(ours)} pieces of {len(texts)} texts")
    others, order = [], 0
    for text, a, b in zip(texts, ours, theirs):
        if a == b:
            continue
        here, there = (package.decode(ids, skip_special_tokens=False) for ids in (a, b))
        if here == unicodedata.normalize("NFC", text) and parts(here) == parts(there):
            order += 1
        else:
            others.append((text, a, b))
    print(f"tokenizers {tokenizers.__version__}: {arguments.texts:,} random texts and "
          f"{len(texts) - arguments.texts} with a mark, {sum(len(text.encode()) for text in texts):,} "
          f"bytes, {sum(map(len, theirs)):,} ids; {order} differ in the order of marks, which is that "
          f"of Unicode {unicodedata.unidata_version}'s NFC here, {len(others)} otherwise")
    for text, a, b in others[:5]:
        print(f"  {text!r}\n    here {a}\n    there {b}")
    if arguments.record:
        lines = [f"tokenizers {tokenizers.__version__}, {BLOCK} texts a line"]
        lines += [hash_of(theirs[begin:begin + BLOCK])
                  for begin in range(0, arguments.texts, BLOCK)]
        arguments.record.write_text("\n".join(lines) + "\n")
    sys.exit(1 if others else 0)


if __name__ == "__main__":
    main()
