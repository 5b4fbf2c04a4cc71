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
for tool in "${tools[@]}"; do
  for program in "${programs[@]}"; do
    section "$tool: $program"
    compute-sanitizer --tool "$tool" --error-exitcode 1 "build/watched/tests/$program" "[sanitizer]"
  done
done
section "${tools[*]}: nothing found"
