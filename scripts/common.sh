# shellcheck shell=bash
# What the scripts share. To be sourced from the root of the repository, under `set -euo pipefail`.

# The user's language may write 0,5 and translate what is read here. UTF-8, so that paths are shown.
export LC_ALL=C.UTF-8
unset LANGUAGE

jobs=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
scratch=$(mktemp -d)
current=""

# Says what comes, so that the place of a failure is found in a long output.
section() {
  current=$*
  printf '\n==== %s\n' "$current"
}

# command_line <word...>: as it can be pasted into a shell.
command_line() {
  local line
  printf -v line '%q ' "$@"
  echo "${line% }"
}

finish() {
  local status=$?
  rm -rf "$scratch"
  if [[ $status -ne 0 && -n $current ]]; then echo "FAILED ($status): $current" >&2; fi
}
trap finish EXIT
trap 'exit 130' INT

# build_preset <preset> [target...]: configures and builds build/<preset>.
build_preset() {
  local preset=$1 options=()
  shift
  section "build: preset $preset"
  if command -v ccache >/dev/null; then
    options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_CUDA_COMPILER_LAUNCHER=ccache)
  fi
  if ! cmake --preset "$preset" "${options[@]}" >"$scratch/configure" 2>&1; then
    cat "$scratch/configure"
    return 1
  fi
  cmake --build "build/$preset" --parallel "$jobs" ${1:+--target "$@"}
}

# run_tests <preset> [arguments for ctest]: a test per processor, each on one thread unless it asks
# for more itself. Threads that wait give up their processor, since other tests want it.
run_tests() {
  local preset=$1
  shift
  section "tests: preset $preset"
  OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=passive \
    ctest --test-dir "build/$preset" --output-on-failure --no-tests=error --parallel "$jobs" "$@"
}
