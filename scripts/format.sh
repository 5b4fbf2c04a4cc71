#!/usr/bin/env bash
# Formats every source file with clang-format 14 (other versions decide differently), or only says
# which ones are not.
#
#     scripts/format.sh [--check]
set -euo pipefail
cd "$(dirname "$0")/.."

mode=(-i)
if [[ "${1:-}" == --check ]]; then mode=(--dry-run -Werror); fi
if ! command -v clang-format-14 >/dev/null; then
  echo "format.sh: needs clang-format-14 (scripts/install_dependencies.sh --dev)" >&2
  exit 1
fi
find app analyses autograd backends benchmarks core examples layers models scoring storage tests text training -type f \
  \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -print0 |
  xargs -0 clang-format-14 "${mode[@]}"
