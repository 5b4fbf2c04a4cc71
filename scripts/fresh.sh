#!/usr/bin/env bash
# Repeats the two commands where nothing is installed: in minimal Debian 12 and 13 roots, made by
# debootstrap, with the committed tree, no compiler cache and no settings of this user. Prints a
# line per step. Needs root and about 4 GB in TMPDIR (default /var/tmp).
#
#     scripts/fresh.sh [--only RELEASE] [--steps LIST] [--minutes N] [--cache FOLDER]
#                      [--logs FOLDER]
#
#     --only RELEASE   bookworm or trixie (default: both, one after the other)
#     --steps LIST     of install (three times, each in a root of its own), demo, test and ci
#                      (default: install,demo,test)
#     --minutes N      for the demo (default: its own)
#     --cache FOLDER   keeps RELEASE.tar, the minimal root, and uses one that is there
#     --logs FOLDER    where a file per step goes (default: build/fresh)
#
# The folder REGLA_DATA, if set, can be read inside. Nothing of the host can be written there.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
export TMPDIR=${TMPDIR:-/var/tmp}

releases=(bookworm trixie) steps=(install demo test) minutes="" cache="" logs=$root/build/fresh
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --only | --steps | --minutes | --cache | --logs)
      [[ $# -ge 2 ]] || { echo "fresh.sh: $1 needs a value" >&2; exit 2; } ;;
    *) echo "fresh.sh: no such option: $1" >&2; exit 2 ;;
  esac
  case $1 in
    --only) releases=("$2") ;;
    --steps) IFS=, read -r -a steps <<<"$2" ;;
    --minutes) minutes=$2 ;;
    --cache) cache=$(realpath -m -- "$2") ;;
    --logs) logs=$(realpath -m -- "$2") ;;
  esac
  shift 2
done
for step in "${steps[@]}"; do
  case $step in
    install | demo | test | ci) ;;
    *) echo "fresh.sh: no such step: $step (install, demo, test, ci)" >&2; exit 2 ;;
  esac
done
[[ $(id -u) -eq 0 ]] || { echo "fresh.sh: needs root" >&2; exit 1; }
for tool in debootstrap unshare git; do
  command -v $tool >/dev/null || { echo "fresh.sh: needs $tool" >&2; exit 1; }
done
cd "$root"
. scripts/common.sh
new=$scratch/root  # the root of the fresh system
child=""

stop_child() {
  if [[ -n $child ]]; then kill -KILL -- "-$child" 2>/dev/null && wait "$child" 2>/dev/null; fi
}
trap 'stop_child || true; finish' EXIT
trap 'exit 143' TERM
trap 'exit 129' HUP

# inside <command>: in the fresh root, in namespaces of its own: mounts and processes end with it.
inside() {
  local namespaces='
    mount -t proc proc "$1/proc"
    mount -t sysfs -o ro sysfs "$1/sys"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$1/dev/pts"
    mount -t tmpfs tmpfs "$1/dev/shm"
    variables=(HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
    for name in http_proxy https_proxy no_proxy CMAKE_BUILD_PARALLEL_LEVEL; do
      if [[ -n ${!name:-} ]]; then variables+=("$name=${!name}"); fi
    done
    if [[ -n ${REGLA_DATA:-} ]]; then
      mkdir -p "$1/data"
      mount --bind "$REGLA_DATA" "$1/data"
      mount -o remount,bind,ro "$1/data"
      variables+=(REGLA_DATA=/data)
    fi
    exec chroot "$1" env -i "${variables[@]}" bash -c "cd /root/regla && $2"'
  set -m  # a process group of its own, in which Ctrl-C is not ignored
  unshare --mount --pid --fork --kill-child bash -euc "$namespaces" inside "$new" "$1" </dev/null &
  child=$!
  set +m
  local status=0
  wait "$child" || status=$?
  child=""
  return $status
}

# The mirrors and the settings of apt for the network are the host's.
mirror_of() {
  local uris
  uris=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' |
    sort -u)
  awk -v security="$1" '(/security/ ? 1 : 0) == security && !found++' <<<"$uris"
}
mirror=$(mirror_of 0)
mirror=${mirror:-http://deb.debian.org/debian}
security=$(mirror_of 1)

make_root() {
  local release=$1 tar=${cache:-$scratch}/$1.tar
  if [[ ! -s $tar ]]; then
    debootstrap --variant=minbase "$release" "$scratch/minimal" "$mirror"
    mkdir -p "$(dirname "$tar")"
    tar -C "$scratch/minimal" -cf "$tar.tmp" .
    mv "$tar.tmp" "$tar"
    rm -rf "$scratch/minimal"
  fi
  rm -rf "$new"
  mkdir -p "$new/root/regla"
  tar -C "$new" -xf "$tar"
  {
    printf 'deb %s %s main\n' "$mirror" "$release" "$mirror" "$release-updates"
    if [[ -n $security ]]; then printf 'deb %s %s-security main\n' "$security" "$release"; fi
  } >"$new/etc/apt/sources.list"
  local settings
  settings=$(apt-config dump)
  grep -E '^Acquire::(Check-|https?::|Retries)' <<<"$settings" >"$new/etc/apt/apt.conf.d/99host" ||
    true
  cp -L /etc/resolv.conf /etc/hosts "$new/etc/"
  git archive HEAD | tar -C "$new/root/regla" -x
}

# step <name> <command...>: its output goes to a file; prints how it ended and how long it took.
failed=0
step() {
  local name=$1 log=$logs/$release-${1// /-}.log begin=$SECONDS status=0
  shift
  "$@" >"$log" 2>&1 || status=$?
  local took=$((SECONDS - begin)) text
  text=$(tr '\r' '\n' <"$log")
  if [[ $status -eq 0 ]]; then
    printf '%-9s %-10s ok %6d s  %s\n' "$release" "$name" "$took" "$(said "$name" "$text")"
  else
    failed=$((failed + 1))
    printf '%-9s %-10s FAILED (%d) after %d s, %s:\n' "$release" "$name" "$status" "$took" "$log"
    tail -n 25 <<<"$text"
    return 1
  fi
}

# said <step> <output>: what of the output a reader wants to see.
said() {
  case $1 in
    install*) echo "$(du -sm "$new" | cut -f 1) MB in all" ;;
    demo)
      sed -n 's/^ *\([0-9.]*\) *this model.*/\1 bits per byte;/p; s/^After the build/after the build/p' \
        <<<"$2" | paste -sd ' ' ;;
    test | ci) grep -E '^[0-9]+% tests passed' <<<"$2" | paste -sd ';' || true ;;
  esac
}

mkdir -p "$logs"
echo "The commit $(git rev-parse --short HEAD); packages from $mirror"
if [[ -n $(git status --porcelain --untracked-files=no) ]]; then
  echo "What is not committed is left out."
fi
for release in "${releases[@]}"; do
  step "minimal root" make_root "$release" || continue
  for name in "${steps[@]}"; do
    case $name in
      install)
        for n in 1 2 3; do
          if [[ $n -gt 1 ]]; then make_root "$release" >/dev/null; fi
          step "install $n" inside scripts/install_dependencies.sh || continue 3
        done ;;
      demo) step demo inside "scripts/demo.sh${minutes:+ --minutes $minutes}" || true ;;
      test) step test inside scripts/test.sh || true ;;
      ci) step ci inside .ci/run || true ;;
    esac
  done
  rm -rf "$new"
done
current=""
if [[ $failed -gt 0 ]]; then
  echo "$failed steps failed." >&2
  exit 1
fi
