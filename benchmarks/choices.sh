#!/usr/bin/env bash
# Scores a task from shared contexts and in whole texts in turn, on one core, and prints the
# seconds of each pair with their ratio.
#
#     benchmarks/choices.sh REGLA RUN TASK-DATA [TASK [DOCUMENTS [PAIRS]]]
#
# TASK is piqa, of which 250 documents are scored, and there are three pairs, if not said otherwise.
set -euo pipefail
(($# >= 3)) || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }
regla="$1" run="$2" data="$3" task="${4:-piqa}" documents="${5:-250}" pairs="${6:-3}"
export OMP_NUM_THREADS=1

seconds() {
  "$regla" eval "$run" --tasks "$task" --task-data "$data" --shots 5 --limit "$documents" --json "$@" |
    python3 -c 'import json, sys; t = json.load(sys.stdin)["tasks"][sys.argv[1]]; print(t["seconds"], t["tokens"])' "$task"
}

for ((pair = 1; pair <= pairs; ++pair)); do
  read -r whole whole_tokens < <(seconds --whole-texts)
  read -r shared shared_tokens < <(seconds)
  awk -v w="$whole" -v s="$shared" -v a="$whole_tokens" -v b="$shared_tokens" \
    'BEGIN { printf "whole %.2f s (%d tokens), shared %.2f s (%d tokens): %.3f times\n", w, a, s, b, w / s }'
done
