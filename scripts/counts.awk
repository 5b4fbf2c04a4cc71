# Count models as a yardstick: bits per byte of a unigram and of an absolute-discount bigram model,
# as benchmarks/ngram_baseline.py defines them.
#
#     awk -v bytes=<bytes of the test text> -f scripts/counts.awk train.ids test.ids
#
# The files hold token ids, one per line.
FNR == 1 { ++file; previous = -1 }
$1 > largest { largest = $1 }
file == 1 {
  ++total
  ++words[$1]
  if (previous >= 0) {
    ++history[previous]
    if (++pairs[previous, $1] == 1) { ++followers[previous]; ++once }
    if (pairs[previous, $1] == 2) { --once; ++twice }
    if (pairs[previous, $1] == 3) --twice
  }
  previous = $1
}
file == 2 { test[++count] = $1 }

function unigram(word) { return (words[word] + 1) / (total + largest + 1) }

function bigram(before, word, direct) {
  if (!history[before]) return unigram(word)
  direct = pairs[before, word] - discount
  if (direct < 0) direct = 0
  return (direct + discount * followers[before] * unigram(word)) / history[before]
}

END {
  discount = once + twice > 0 ? once / (once + 2 * twice) : 0.5
  for (i = 1; i <= count; ++i) {
    unigram_bits -= log(unigram(test[i]))
    bigram_bits -= log(i == 1 ? unigram(test[i]) : bigram(test[i - 1], test[i]))
  }
  printf "%.3f %.3f\n", unigram_bits / log(2) / bytes, bigram_bits / log(2) / bytes
}
