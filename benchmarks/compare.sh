#!/usr/bin/env bash
# Trains the same model with regla and with PyTorch in turn, A B A B, each time in a fresh process,
# and prints the pairs with their ratios; `recurrence` compares forward and backward of the
# recurrence alone.
#
#     benchmarks/compare.sh [options] [CONFIG.json | recurrence]...
#         --pairs N        pairs of each (5)
#         --repeats N      updates measured by each process (5)
#         --build DIR      build folder of regla (build/release)
#         --python PATH    a Python with torch and numpy (python3)
#         --threads N      threads of both (all)
#         --chunk C        tokens of a chunk in PyTorch (the fastest of a sweep at the beginning)
#         --precision P    fp32, or bf16: of regla, and torch.autocast("cpu", torch.bfloat16) (fp32)
#         --compile        with torch.compile
#         --keep-memory    PyTorch with a malloc that gives nothing back
#         --out DIR        keep the JSON of every process
# By default configs/bench/small_regla.json, configs/bench/small_softmax.json and, in fp32,
# recurrence.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"

fail() { echo "compare.sh: $1" >&2; exit 2; }

pairs=5 repeats=5 build="$here/../build/release" python=python3 threads="$(nproc)" chunk=0 out=""
precision=fp32
peer_flags=() targets=()
while (($#)); do
  case "$1" in
    --pairs | --repeats | --build | --python | --threads | --chunk | --precision | --out)
      (($# >= 2)) || fail "expected a value after $1"
      printf -v "${1#--}" '%s' "$2"
      shift 2 ;;
    --compile | --keep-memory) peer_flags+=("$1"); shift ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    -*) fail "unknown option $1" ;;
    *) targets+=("$1"); shift ;;
  esac
done
for number in pairs repeats threads; do
  [[ "${!number}" =~ ^[1-9][0-9]*$ ]] || fail "expected --$number to be at least 1, got ${!number}"
done
[[ "$precision" == fp32 || "$precision" == bf16 ]] ||
  fail "expected --precision to be fp32 or bf16, got $precision"
[[ "$chunk" =~ ^[0-9]+$ ]] || fail "expected --chunk to be a number, got $chunk"
if ((${#targets[@]} == 0)); then
  configs="$here/../configs/bench"
  targets=("$configs/small_regla.json" "$configs/small_softmax.json")
  if [[ "$precision" == fp32 ]]; then targets+=(recurrence); fi
fi
for target in "${targets[@]}"; do
  [[ "$target" == recurrence || -r "$target" ]] || fail "cannot read $target"
  [[ "$target" != recurrence || "$precision" == fp32 ]] || fail "recurrence is measured in fp32"
done
regla="$build/app/regla"
[[ -x "$regla" ]] || fail "no program $regla; build it or give --build"
"$python" -c 'import numpy, torch' 2>/dev/null || fail "$python cannot import torch and numpy"

if [[ -z "$out" ]]; then
  out="$(mktemp -d)"
  trap 'rm -rf "$out"' EXIT
fi
# Both with the same threads and the same short spinning of libgomp, which regla sets for itself.
export OMP_NUM_THREADS="$threads" GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-10000}"

run_regla() { # target file
  if [[ "$1" == recurrence ]]; then
    "$regla" bench ops --only "recurrence regla" --repeats "$repeats" --json >"$2"
  else
    "$regla" bench train --config "$1" --set "precision=$precision" --repeats "$repeats" --json >"$2"
  fi
}

run_peer() { # target file chunk repeats
  local command=(train --config "$1" --precision "$precision")
  if [[ "$1" == recurrence ]]; then command=(recurrence); fi
  "$python" "$here/pytorch_peer.py" "${command[@]}" --chunk "$3" --repeats "$4" \
    "${peer_flags[@]}" >"$2"
}

for target in "${targets[@]}"; do
  folder="$out/$(basename "$target" .json)"
  mkdir -p "$folder"
  best="$chunk"
  if ((best == 0)); then
    # In a process of its own: what the other chunks needed is not counted as memory.
    run_peer "$target" "$folder/sweep.json" 0 1
    best="$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["chunk"])' \
      "$folder/sweep.json")"
  fi
  for ((pair = 1; pair <= pairs; ++pair)); do
    printf '\r%s: pair %d of %d ' "$(basename "$target")" "$pair" "$pairs" >&2
    run_regla "$target" "$folder/a_$pair.json"
    run_peer "$target" "$folder/b_$pair.json" "$best" "$repeats"
  done
  printf '\r\033[K' >&2
  "$python" "$here/comparison.py" "$folder" "$pairs"
done
