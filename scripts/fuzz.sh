#!/usr/bin/env bash
# Builds the fuzz targets (preset `fuzz`, clang) and runs each for some seconds from small seeds. An
# input that breaks a target is left in build/fuzz/crashes.
#
#     scripts/fuzz.sh [seconds per target, default 20]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
seconds=${1:-20}

targets=(safetensors tokenizer config state gpt_neox)
build_preset fuzz "${targets[@]/#/fuzz_}"

# A seed per format: fuzzing then starts behind the first checks.
seeds=build/fuzz/seeds
for target in "${targets[@]}"; do mkdir -p $seeds/$target build/fuzz/corpus/$target; done
mkdir -p build/fuzz/crashes
header='{"__metadata__":{"a":"b"},"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}'
{
  # The header's length as 8 bytes, little-endian.
  printf "\\x$(printf %02x ${#header})\\0\\0\\0\\0\\0\\0\\0"
  printf '%s\0\0\200\77\0\0\0\100' "$header"
} >$seeds/safetensors/seed
cat >$seeds/tokenizer/seed <<'JSON'
{"version":"1.0","truncation":null,"padding":null,
 "added_tokens":[{"id":3,"content":"<|endoftext|>","single_word":false,"lstrip":false,
  "rstrip":false,"normalized":false,"special":true}],
 "normalizer":null,
 "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
 "post_processor":null,
 "decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
 "model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,
  "end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,
  "vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}
JSON

cp configs/*.json $seeds/config/
for folder in tests/fixtures/gpt_neox/*/; do
  cp "$folder/config.json" "$seeds/gpt_neox/$(basename "$folder")"
done
# A whole optimizer.safetensors, which the target itself writes, and a state.json.
REGLA_FUZZ_SEED=$seeds/state/optimizer build/fuzz/tests/fuzz/fuzz_state -runs=1 >"$scratch/log" 2>&1
cat >$seeds/state/state <<'JSON'
{"version":1,"step":1,"seed":0,"tokens":4,"elapsed_s":0.1,"best_step":-1,"best_loss":0,
 "evaluated_step":-1,"text":"abc"}
JSON

for target in "${targets[@]}"; do
  section "fuzz: $target, $seconds s"
  if ! OMP_NUM_THREADS=1 build/fuzz/tests/fuzz/fuzz_$target -max_total_time="$seconds" -timeout=10 \
    -print_final_stats=1 -artifact_prefix=build/fuzz/crashes/$target- \
    build/fuzz/corpus/$target $seeds/$target >"$scratch/log" 2>&1; then
    tail -n 60 "$scratch/log"
    exit 1
  fi
  grep '^stat::' "$scratch/log"
done
