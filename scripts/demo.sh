#!/usr/bin/env bash
# From a fresh clone to a trained language model: installs what is needed, builds, gets text, trains
# a ReGLA decoder on the CPU for a few minutes, measures it on unseen text and lets it write.
#
#     scripts/demo.sh [--data PATH] [--minutes N] [--out RUN]
#
#     --data PATH    text to learn: a folder with train, valid and test files, or one text file.
#                    Default: WikiText-2 if it can be downloaded, else the text of a documentation
#                    package from the package registry.
#     --minutes N    all that comes after the build takes at most N + 1 minutes (default 5)
#     --out RUN      the run's folder (default: the first free runs/demo-<n>); the text it learns is
#                    put beside it, in RUN-text
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; }

data="" minutes=5 run=""
while [[ $# -gt 0 ]]; do
  case $1 in
    --data | --minutes | --out)
      [[ $# -ge 2 ]] || { echo "demo.sh: $1 needs a value" >&2; exit 2; }
      case $1 in
        --data) data=$(realpath -m -- "$2") ;;
        --minutes) minutes=$2 ;;
        --out) run=$(realpath -m -- "$2") ;;
      esac
      shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) echo "demo.sh: no such option: $1" >&2; usage >&2; exit 2 ;;
  esac
done
if ! [[ $minutes =~ ^[1-9][0-9]{0,4}$ ]]; then
  echo "demo.sh: expected a whole number of minutes, got $minutes" >&2
  exit 2
fi
if [[ -n $data && ! -e $data ]]; then
  echo "demo.sh: there is no $data" >&2
  exit 2
fi
cd "$root"
. scripts/common.sh
. scripts/text.sh

scripts/install_dependencies.sh

section "text"
if [[ -n $data ]]; then
  source="your own text, $data"
  prompt="The"
else
  find_text "$root/build/text"  # sets data, source and prompt
fi

build_preset release regla
regla=build/release/app/regla
deadline=$((SECONDS + 60 * minutes + 60))

if [[ -z $run ]]; then
  n=1
  while [[ -e runs/demo-$n || -e runs/demo-$n-text ]]; do n=$((n + 1)); done
  run=runs/demo-$n
fi
text=$run-text

section "parts"
# More text than an update will see only costs time.
train_bytes=$((8000000 * minutes))
split_text "$data" "$text" $train_bytes $((500000 * minutes))
echo "The model learns $source."
echo "$(part_of train), $(part_of valid), $(part_of test)."

# regla_until <seconds> <arguments...>: stops it as Ctrl-C does when the time is over, and sets
# `late`. It stays in the foreground, so that Ctrl-C is its own.
late=""
regla_until() {
  local seconds=$1 status=0 watch
  shift
  rm -f "$scratch/pid" "$scratch/late"
  (
    trap - EXIT
    sleep "$seconds" &
    trap 'kill $!; exit' TERM
    wait $!
    : >"$scratch/late"
    kill -INT "$(cat "$scratch/pid")"
  ) >/dev/null 2>&1 &
  watch=$!
  trap : INT
  bash -c 'echo $$ >"$1"; shift; exec "$@"' regla "$scratch/pid" $regla "$@" || status=$?
  trap 'exit 130' INT
  kill "$watch" 2>/dev/null || true
  wait "$watch" 2>/dev/null || true
  late=""
  if [[ -e $scratch/late ]]; then late=yes; fi
  return $status
}

section "speed"
# A few updates tell how many fit into the time, and a little of the test text how much of it can
# be measured. The tokenizer is learnt here; the training then finds it.
config=configs/wikitext2-cpu.json
mkdir -p "$scratch/train" "$scratch/little"
ln -s "$(realpath "$text/train.$kind")" "$scratch/train/train.$kind"
cut_text "$text/test.$kind" 60000 "$scratch/little/test.$kind" || true
regla_until $((30 * minutes)) train --config $config --data "$scratch/train" --out "$scratch/trial" \
  --steps 12 --set log_every=1 >"$scratch/log" 2>&1 || {
  status=$?
  cat "$scratch/log" >&2
  if [[ -n $late ]]; then
    echo "demo.sh: this machine is too slow for $minutes minutes; take more (--minutes)" >&2
  fi
  exit $status
}
# The median, so that neither the first update nor a moment's load counts.
step_time=$(sed -n 's/.*"lr".*"elapsed_s": *\([0-9.e+-]*\).*/\1/p' "$scratch/trial/metrics.jsonl" |
  awk 'NR > 1 { print $1 - before } { before = $1 }' | sort -g |
  awk '{ time[NR] = $1 } END { print time[int((NR + 1) / 2)] }')
begin=$EPOCHREALTIME
$regla eval "$scratch/trial" --data "$scratch/little" >"$scratch/log" 2>&1 ||
  { status=$?; cat "$scratch/log" >&2; exit $status; }
eval_speed=$(awk -v from="$begin" -v to="$EPOCHREALTIME" \
  -v bytes="$(size_of "$scratch/little/test.$kind")" \
  'BEGIN { printf "%d", bytes / (to - from) + 1 }')
# A twentieth of the time for the test, a fiftieth for a validation.
shrink test $((eval_speed * 3 * minutes))
shrink valid $((eval_speed * 6 * minutes / 5))

all_steps=$(sed -n 's/.*"steps": *\([0-9]*\).*/\1/p' $config)
left=$((deadline - SECONDS))
# What comes after the training: the test, the counts, the sample.
after=$((15 + 4 * minutes))
read -r steps train_time < <(awk -v step="$step_time" -v left=$((left - after)) -v all="$all_steps" \
  -v valid="$(size_of "$text/valid.$kind")" -v speed="$eval_speed" -v limit=$((60 * minutes)) 'BEGIN {
    if (left > limit) left = limit
    # A validation per 200 updates, one at the end; a tenth for what may come between.
    steps = int((0.9 * left - valid / speed) / (step + valid / speed / 200))
    steps = steps < 1 ? 1 : steps > all ? all : steps
    printf "%d %d\n", steps, steps * step + (1 + int(steps / 200)) * valid / speed + 1
  }')
echo "$steps of the configuration's $all_steps updates fit ($((100 * steps / all_steps)) %): about" \
  "$train_time s, with validations on $(size_of "$text/valid.$kind") bytes."
echo "Then about $after s for the test on $(size_of "$text/test.$kind") bytes and a sample."

section "training ($run)"
status=0
regla_until $((left - after)) train --config $config --data "$text" --out "$run" \
  --steps "$steps" || status=$?
if [[ $status -eq 130 && -n $late && -e $run/latest ]]; then
  echo "The time is over: stopped and saved before the last of $steps updates."
elif [[ $status -ne 0 ]]; then
  if [[ $status -eq 130 ]]; then
    echo "Interrupted; go on with:"
    echo "    $(command_line $regla train --config $config --data "$text" --out "$run" \
      --steps "$steps" --resume)"
    current=""
  fi
  exit $status
fi

section "the test: $(part_of test)"
regla_until $((deadline - SECONDS)) eval "$run" --data "$text" | tee "$scratch/result"
bits=$(awk '$1 == "bits_per_byte" { print $2 }' "$scratch/result")

section "what the number means"
for split in train test; do
  $regla tokenizer encode --tokenizer "$run/tokenizer.json" --file "$text/$split.$kind" --json |
    tr -cs 0-9 '\n' | sed '/^$/d' >"$scratch/$split.ids"
done
read -r unigram bigram < <(awk -v bytes="$(size_of "$text/test.$kind")" -f scripts/counts.awk \
  "$scratch/train.ids" "$scratch/test.ids")
updates=$(sed -n 's/^ *"step": *\([0-9]*\).*/\1/p' "$run/state.json")
cat <<TEXT
Bits per byte of the same text, fewer are better; 8 is knowing nothing.
    $unigram   how often each token was seen in the train text
    $bigram   which token followed which
    $bits   this model, after $updates of the configuration's $all_steps updates ($((100 * updates / all_steps)) %)
TEXT
if awk -v bits="$bits" -v bigram="$bigram" 'BEGIN { exit !(bits < bigram) }'; then
  echo "It has learnt more than which token follows which."
else
  echo "It has not yet learnt more than which token follows which; give it more --minutes."
fi

if command -v gnuplot >/dev/null; then
  draw_curve "$run" "$bigram" && echo "The curve is drawn in $run/curve.svg."
fi

section "a sample"
$regla generate "$run" --prompt "$prompt" --max-new-tokens 120 --temperature 0.8 --top-k 40 --seed 1

section "done"
echo "The model learned $source. The run is in $run; to hear more:"
echo "    $(command_line $regla generate "$run" --prompt "$prompt" --seed 2)"
echo "After the build it took $((SECONDS - deadline + 60 * minutes + 60)) s."
