#!/usr/bin/env bash
# Installs what is needed, builds (preset `ci`: optimised, warnings are errors, fresh memory filled
# with NaN) and runs every test. Tests that need real text take it from the folder REGLA_DATA.
#
#     scripts/test.sh [arguments for ctest]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

scripts/install_dependencies.sh
build_preset ci
if [[ -z "${REGLA_DATA:-}" ]]; then
  echo "REGLA_DATA is not set: tests that need real text are skipped."
fi
run_tests ci "$@"
