#!/usr/bin/env bash
# From a fresh clone to a trained language model: installs what is needed, builds, gets text, trains
# a ReGLA decoder on the CPU for a few minutes, measures it on unseen text and lets it write.
#
#     scripts/demo.sh [--data PATH] [--minutes N] [--out RUN]
#
#     --data PATH    text to learn: a folder with train, valid and test files, or one text file.
#                    Default: WikiText-2 if it can be downloaded, else the text of a documentation
#                    package from the package registry.
#     --minutes N    about how long to train at most (default 5)
#     --out RUN      the run's folder (default: the first free runs/demo-<n>)
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
if ! [[ $minutes =~ ^[0-9]+$ ]] || [[ $minutes -eq 0 ]]; then
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
build_preset release regla
regla=build/release/app/regla

section "text"
if [[ -n $data ]]; then
  source="your own text, $data"
  prompt="The"
else
  find_text "$root/build/text"  # sets data, source and prompt
fi
echo "The model learns $source."
split=test
if [[ -d $data && -z $(find "$data" -maxdepth 1 -name '*test.*') ]]; then
  split=valid
  echo "There is no test split: it is measured on the valid split, by which training picks its best."
fi

if [[ -z $run ]]; then
  n=1
  while [[ -e runs/demo-$n ]]; do n=$((n + 1)); done
  run=runs/demo-$n
fi

section "speed"
# A few updates on the train split alone tell how many fit into the time.
config=configs/wikitext2-cpu.json
trial=12
mkdir "$scratch/train"
if [[ -d $data ]]; then
  find "$data" -maxdepth 1 -name '*train*' -exec ln -s {} "$scratch/train" ';'
else
  packed=${data##*.}
  if [[ $packed != xz && $packed != gz ]]; then packed=""; fi
  ln -s "$data" "$scratch/train/train.txt${packed:+.$packed}"
fi
$regla train --config $config --data "$scratch/train" --out "$scratch/trial" --steps $trial \
  --set log_every=1 >"$scratch/log" 2>&1 ||
  { status=$?; cat "$scratch/log" >&2; exit $status; }
steps=$(grep -o '"steps": *[0-9]*' $config | grep -o '[0-9]*')
# Goes by the median, so that neither the first update nor a moment's load counts.
steps=$(grep '"lr"' "$scratch/trial/metrics.jsonl" |
  sed 's/.*"elapsed_s": *\([0-9.e+-]*\).*/\1/' |
  awk 'NR > 1 { print $1 - before } { before = $1 }' | sort -g |
  awk -v want="$steps" -v seconds=$((60 * minutes)) '
    { time[NR] = $1 }
    END {
      fits = int(seconds / time[int((NR + 1) / 2)])
      print (fits < 1 ? 1 : (fits < want ? fits : want))
    }')
echo "$steps updates fit into $minutes minutes at most."

section "training ($run)"
status=0
trap : INT  # Ctrl-C is the training's, which saves
$regla train --config $config --data "$data" --out "$run" --steps "$steps" || status=$?
trap 'exit 130' INT
if [[ $status -eq 130 ]]; then
  echo "Interrupted; go on with: $regla train --config $config --data $data --out $run" \
    "--steps $steps --resume"
  current=""
fi
if [[ $status -ne 0 ]]; then exit $status; fi

section "the $split split"
$regla eval "$run" --data "$data" --split $split

section "a sample"
$regla generate "$run" --prompt "$prompt" --max-new-tokens 120 --temperature 0.8 --top-k 40 --seed 1

section "done"
echo "The model learned $source."
echo "The run is in $run; to hear more:"
echo "    $regla generate $run --prompt \"$prompt\" --seed 2"
