#!/usr/bin/env python3
"""Count models as a yardstick: bits per byte of a unigram and of an absolute-discount bigram model.

    regla tokenizer encode --tokenizer RUN/tokenizer.json --file wiki.train.tokens --json > train.json
    regla tokenizer encode --tokenizer RUN/tokenizer.json --file wiki.test.tokens --json > test.json
    benchmarks/ngram_baseline.py train.json test.json wiki.test.tokens

The bigram model is P(w|h) = max(c(h,w) - d, 0)/c(h) + d n(h)/c(h) P(w), with n(h) the number of
different followers of h and d = n1/(n1 + 2 n2) from the bigrams seen once and twice; P(w) is the
unigram count with one added to every entry. Bytes are those of the file as it is.
"""
import json
import math
import os
import sys
from collections import Counter


def read_ids(path):
    with open(path) as file:
        data = json.load(file)
    return data["ids"] if isinstance(data, dict) else data


def main():
    train, test = read_ids(sys.argv[1]), read_ids(sys.argv[2])
    size = os.path.getsize(sys.argv[3])
    vocab = max(max(train), max(test)) + 1

    words = Counter(train)
    unigram = [(words.get(w, 0) + 1) / (len(train) + vocab) for w in range(vocab)]
    pairs = Counter(zip(train, train[1:]))
    seen = Counter(pairs.values())
    discount = seen[1] / (seen[1] + 2 * seen[2])
    history, followers = Counter(), Counter()
    for (h, _), count in pairs.items():
        history[h] += count
        followers[h] += 1

    def bigram(h, w):
        if not history[h]:
            return unigram[w]
        direct = max(pairs.get((h, w), 0) - discount, 0) / history[h]
        return direct + discount * followers[h] / history[h] * unigram[w]

    unigram_bits = -sum(math.log2(unigram[w]) for w in test)
    bigram_bits = -math.log2(unigram[test[0]])
    bigram_bits -= sum(math.log2(bigram(h, w)) for h, w in zip(test, test[1:]))
    print(f"{len(test)} tokens, {size} bytes, discount {discount:.3f}")
    print(f"unigram {unigram_bits / size:.4f} bits per byte")
    print(f"bigram  {bigram_bits / size:.4f} bits per byte")


if __name__ == "__main__":
    main()
