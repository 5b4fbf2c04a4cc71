#!/usr/bin/env bash
# Runs the tests tagged [sanitizer] on this machine's GPU under the tools of compute-sanitizer, each
# about three minutes: memory out of bounds, memory read before it was written, races in shared
# memory. The build (preset `watched`) gives every tensor an allocation of its own, so that the tools
# see where it ends and what was written, and fills no fresh memory.
#
#     scripts/sanitize_cuda.sh [tool ...]      of memcheck, initcheck and racecheck; default: all
set -euo pipefail
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
  exit
fi
cd "$(dirname "$0")/.."
. scripts/common.sh
tools=("$@")
if [[ $# -eq 0 ]]; then tools=(memcheck initcheck racecheck); fi
export PATH=$PATH:/usr/local/cuda/bin

programs=(test_backends test_autograd test_models test_training)
build_preset watched "${programs[@]}"

# case_names <program>: those tagged [sanitizer], by the option that either Catch2 has; version 2
# exits with their number.
case_names() {
  local names
  names=$("$1" --list-test-names-only "[sanitizer]" 2>/dev/null || true)
  if [[ -z $names ]]; then names=$("$1" --list-tests --verbosity quiet "[sanitizer]"); fi
  echo "$names"
}

# watch <tool> <program> <name>: runs a test case; what the tool says is shown if it found something.
watch() {
  local log
  log=$(mktemp -p "$scratch")
  if compute-sanitizer --tool "$1" --error-exitcode 1 "$2" --case "$3" >"$log" 2>&1; then
    echo "clean: $3"
  else
    cat "$log"
    echo "NOT CLEAN: $3"
    return 1
  fi
}

# The tools keep the processor busy, not the GPU: all cases at once, each on a thread.
export OMP_NUM_THREADS=1
status=0
for tool in "${tools[@]}"; do
  section "$tool"
  cases=()
  for program in "${programs[@]/#/build/watched/tests/}"; do
    mapfile -t names < <(case_names "$program")
    for name in "${names[@]}"; do
      watch "$tool" "$program" "$name" &
      cases+=($!)
    done
  done
  for case in "${cases[@]}"; do wait "$case" || status=1; done
done
if [[ $status -ne 0 ]]; then exit "$status"; fi
section "${tools[*]}: nothing found"
