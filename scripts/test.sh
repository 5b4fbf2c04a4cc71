#!/usr/bin/env bash
# Installs what is needed, builds (preset `test`: optimised, fresh memory filled with NaN) and runs
# every test. Tests that need real text take it from the folder REGLA_DATA.
#
#     scripts/test.sh [arguments for ctest]      e.g. -R softmax
set -euo pipefail
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
  exit
fi
cd "$(dirname "$0")/.."
. scripts/common.sh

scripts/install_dependencies.sh
build_preset test
if [[ -z "${REGLA_DATA:-}" ]]; then
  echo "REGLA_DATA is not set: tests that need real text are shown as skipped."
fi
run_tests test "$@"
