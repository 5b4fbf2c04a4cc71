#!/usr/bin/env bash
# Installs what regla is built from, on Debian 12 and 13 and Ubuntu 24.04 (root or sudo). Asks the
# package manager for nothing when everything is there, so it also runs without a network.
#
#     scripts/install_dependencies.sh [--dev]      --dev: also what the checks need (clang)
set -euo pipefail
export LC_ALL=C  # what is read below is not translated
unset LANGUAGE

packages=(build-essential cmake ninja-build libeigen3-dev libdnnl-dev libcli11-dev
  nlohmann-json3-dev libicu-dev liblzma-dev zlib1g-dev catch2 gnuplot-nox)
if [[ "${1:-}" == --dev ]]; then
  packages+=(clang libclang-rt-dev libomp-dev clang-format-14 git)
elif [[ $# -gt 0 ]]; then
  echo "install_dependencies.sh: expected nothing or --dev, got $1" >&2
  exit 2
fi

# Elsewhere the user installs the same things by hand; the build then says what it misses.
if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  echo "No apt on this system. regla needs a C++20 compiler, cmake >= 3.25, ninja, Eigen 3.4," >&2
  echo "oneDNN 2 or 3, OpenMP, CLI11, nlohmann-json, ICU, liblzma, zlib, and Catch2 for its tests;" >&2
  echo "gnuplot draws the pictures of regla analyse and report, if it is there." >&2
  for tool in c++ cmake ninja; do
    command -v "$tool" >/dev/null || { echo "$tool is not installed" >&2; exit 1; }
  done
  exit 0
fi

# Output is read to its end: a program whose pipe closes early fails, and with it the pipe.
is_installed() {
  grep -qx installed <<<"$(dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null)"
}

missing=()
for package in "${packages[@]}"; do
  if [[ $package == libdnnl-dev ]] && is_installed libonednn-dev; then continue; fi
  if [[ $package == gnuplot-nox ]] && command -v gnuplot >/dev/null; then continue; fi
  is_installed "$package" || missing+=("$package")
done
is_known() { [[ -n $(apt-cache show "$1" 2>/dev/null) ]]; }
# Only formatting needs this one, and not every release has it.
leave_out_formatter() {
  local package kept=()
  if is_known clang-format-14; then return; fi
  for package in "${missing[@]}"; do
    if [[ $package == clang-format-14 ]]; then
      echo "This release has no clang-format-14: formatting is not checked here."
    else
      kept+=("$package")
    fi
  done
  missing=("${kept[@]}")
}
if [[ ${missing[*]} == clang-format-14 ]] && is_known clang; then leave_out_formatter; fi
if [[ ${#missing[@]} -eq 0 ]]; then exit 0; fi

as_root=()
if [[ $(id -u) -ne 0 ]]; then
  command -v sudo >/dev/null || { echo "needs root or sudo to install: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" </dev/null; }

apt update
leave_out_formatter
# Some packages have another name elsewhere.
for i in "${!missing[@]}"; do
  if is_known "${missing[i]}"; then continue; fi
  case ${missing[i]} in
    libdnnl-dev) missing[i]=libonednn-dev ;;
    libclang-rt-dev)
      missing[i]=$(apt-cache depends clang | sed -n 's/.*Depends: clang-\([0-9]*\)$/libclang-rt-\1-dev/p')
      ;;
  esac
done
echo "Installing ${missing[*]}"
apt install --no-install-recommends "${missing[@]}"
