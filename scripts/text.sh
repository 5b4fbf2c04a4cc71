# shellcheck shell=bash
# Finds text to train on. To be sourced after scripts/common.sh.

# download <url> <file>: quietly, giving up soon; the content is checked by the caller. CMake can
# download, which spares a dependency.
download() {
  cat >"$scratch/download.cmake" <<CMAKE
file(DOWNLOAD "$1" "$2" TIMEOUT 120 INACTIVITY_TIMEOUT 8 STATUS status)
list(GET status 0 code)
if(code)
  message(FATAL_ERROR "\${status}")
endif()
CMAKE
  timeout 130 cmake -P "$scratch/download.cmake" >/dev/null 2>&1
}

# WikiText-2 (Merity et al. 2016), the word-level release, known by its contents.
is_wikitext() {
  (cd "$1" 2>/dev/null && sha256sum --check --status - <<'SUMS'
9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f  wiki.train.tokens
f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8  wiki.valid.tokens
d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0  wiki.test.tokens
SUMS
  )
}

get_wikitext() {
  local folder=$1 url
  if is_wikitext "$folder"; then return; fi
  for url in https://wikitext.smerity.com/wikitext-2-v1.zip \
    https://s3.amazonaws.com/research.metamind.io/wikitext/wikitext-2-v1.zip; do
    if download $url "$scratch/wikitext.zip" &&
      (cd "$scratch" && cmake -E tar xf wikitext.zip >/dev/null 2>&1) &&
      is_wikitext "$scratch/wikitext-2"; then
      mkdir -p "$folder"
      cp "$scratch"/wikitext-2/wiki.*.tokens "$folder"
      return
    fi
  done
  return 1
}

# prose <file.html...>: the paragraphs of HTML pages, one per line, a title before each page.
# Programs, tables, lists and short lines are left out.
prose() {
  local page
  local -x LC_ALL=C  # bytes in, the same bytes out
  for page in "$@"; do
    tr '\n\t' '  ' <"$page" | sed -E '
      s/<(\/?)(H[1-6]|P|PRE|TITLE|BODY|DIV)\b/<\1\L\2/g
      s/.*<body/<body/
      s/<pre\b/\n&/g; s/<\/pre>/&\n/g' | sed -E '
      /^<pre\b/d
      s/<(h[12])\b[^>]*>/\n@@/g; s/<\/h[12]>/\n/g
      s/<\/?(p|div|li|dt|dd|td|th|tr|table|ul|ol|dl|h[3-6]|br)\b[^>]*>/\n/g
      s/<[^>]*>//g' | sed -E '
      s/&nbsp;|&#160;|\xc2\xa0/ /g; s/&lt;/</g; s/&gt;/>/g; s/&quot;|&#34;/"/g; s/&#39;|&apos;/'"'"'/g
      s/&#8211;/–/g; s/&#8212;/—/g; s/&#8216;/‘/g; s/&#8217;/’/g; s/&#8220;/“/g; s/&#8221;/”/g
      s/&#[0-9]+;//g; s/&amp;/\&/g
      s/ +/ /g; s/^ //; s/ $//' | awk '
      /^@@/ { if (title == "") title = substr($0, 3); next }
      NF >= 12 && /[.!?:]["”’)]*$/ {
        if (!titled && title != "") printf "\n = %s = \n\n", title
        titled = 1
        print
      }'
  done
}

# The text of a package of documentation. It is unpacked, not installed.
get_documentation() {
  local file=$1 package pages manual
  manual=$(apt-cache depends postgresql-doc 2>/dev/null |
    sed -n 's/.*Depends: \(postgresql-doc-[0-9]*\)$/\1/p' || true)
  for package in $manual debian-handbook; do
    rm -rf "$scratch/package"
    mkdir -p "$scratch/package"
    (cd "$scratch/package" && timeout 300 apt-get -q download "$package" >/dev/null 2>&1 &&
      dpkg-deb -x ./*.deb .) || continue
    mapfile -t pages < <(find "$scratch/package/usr/share/doc" -name '*.html' \
      \( -path '*/en-US/*' -o -path '*/postgresql-doc*' \) | LC_ALL=C sort)
    if [[ ${#pages[@]} -eq 0 ]]; then continue; fi
    mkdir -p "$(dirname "$file")"
    prose "${pages[@]}" >"$scratch/prose"
    if [[ $(wc -c <"$scratch/prose") -lt 500000 ]]; then continue; fi
    mv "$scratch/prose" "$file"
    echo "$package" >"$file.package"
    return
  done
  return 1
}

# find_text <folder to keep text in>: sets `data` to a path, `source` to what it is, and `prompt` to
# how a sentence of it may begin.
find_text() {
  local folder=$1
  if get_wikitext "$folder/wikitext-2"; then
    data=$folder/wikitext-2
    source="WikiText-2 (word-level release, checksums verified)"
    prompt="The history of"
    return
  fi
  echo "WikiText-2 cannot be downloaded here."
  data=$folder/documentation.txt
  if [[ -s $data ]] || get_documentation "$data"; then
    source="the prose of the package $(cat "$data.package"), $(wc -c <"$data") bytes, split 90/5/5"
    prompt="The system"
    return
  fi
  echo "demo.sh: found no text; give some with --data PATH" >&2
  return 1
}

size_of() { stat -L -c %s -- "$1"; }

# cut_text <file> <bytes> <target>: the beginning of a text, up to a line's end, unpacked; 1 where it is not all. What it
# says nobody reads: a program that unpacks more than is wanted fails with its pipe.
cut_text() {
  local file=$1 bytes=$2 target=$3
  case $file in
    *.xz) { xz -dc -- "$file" 2>/dev/null || true; } | head -c $((bytes + 1)) >"$target" ;;
    *.gz) { gzip -dc -- "$file" 2>/dev/null || true; } | head -c $((bytes + 1)) >"$target" ;;
    *) head -c $((bytes + 1)) -- "$file" >"$target" ;;
  esac
  if [[ $(size_of "$target") -gt $bytes ]]; then
    head -c "$bytes" "$target" >"$target.cut"
    # A last line that is cut goes, unless it is all.
    sed '${/./d}' "$target.cut" >"$target"
    if [[ ! -s $target ]]; then cp "$target.cut" "$target"; fi
    rm "$target.cut"
    return 1
  fi
}

# split_text <text> <folder> <train bytes> <other bytes>: parts of at most so many bytes of a folder
# with splits or of one file (90/5/5). Sets `kind`, their extension, and `share`, which part is whole.
declare -A share
split_text() {
  local data=$1 folder=$2 split file limit size
  mkdir -p "$folder"
  if [[ -d $data ]]; then
    for kind in tokens raw txt; do
      if [[ -n $(file_of train) && -n $(file_of valid) ]]; then break; fi
    done
    for split in train valid test; do
      file=$(file_of $split)
      if [[ -z $file && $split == test ]]; then
        file=$(file_of valid)
        echo "There is no test split: it is measured on the valid split, by which training picks" \
          "its best."
      fi
      [[ -n $file ]] || { echo "demo.sh: $data has no $split file" >&2; return 1; }
      limit=$4
      if [[ $split == train ]]; then limit=$3; fi
      share[$split]="whole"
      cut_text "$file" "$limit" "$folder/$split.$kind" || share[$split]="beginning of the"
    done
  else
    extension "$data"
    share=([train]=whole [valid]=whole [test]=whole)
    cut_text "$data" $(($3 * 10 / 9)) "$folder/all" ||
      echo "Only the first $(size_of "$folder/all") bytes of $data are used."
    size=$(size_of "$folder/all")
    # By whole lines: what is behind 90 % of the bytes is for validation, behind 95 % for the test.
    LC_ALL=C awk -v size="$size" -v base="$folder" -v kind="$kind" '{
      split_name = at < 0.9 * size ? "train" : at < 0.95 * size ? "valid" : "test"
      print >(base "/" split_name "." kind)
      at += length($0) + 1
    }' "$folder/all"
    rm "$folder/all"
    for split in train valid test; do
      [[ -s $folder/$split.$kind ]] || { echo "demo.sh: $data has too few lines" >&2; return 1; }
    done
  fi
}

# file_of <split>: the file of this split and `kind` in the folder `data`, or nothing.
file_of() {
  find -L "$data" -maxdepth 1 -type f -not -name '.*' -name "*$1*" \
    \( -name "*.$kind" -o -name "*.$kind.xz" -o -name "*.$kind.gz" \) | LC_ALL=C sort | sed -n 1p
}

# extension <file>: sets `kind`.
extension() {
  local name=${1%.xz}
  name=${name%.gz}
  case $name in
    *.tokens) kind=tokens ;;
    *.raw) kind=raw ;;
    *) kind=txt ;;
  esac
}

# shrink <split> <bytes>: keeps no more than its beginning.
shrink() {
  local file=$text/$1.$kind least=20000 bytes=$2
  if [[ $bytes -lt $least ]]; then bytes=$least; fi
  cp "$file" "$scratch/part"
  cut_text "$scratch/part" "$bytes" "$file" || share[$1]="beginning of the"
}

part_of() { echo "${share[$1]} $1 split ($(size_of "$text/$1.$kind") bytes)"; }

# draw_curve <run> <bits per byte of the bigram counts>: bits per byte against updates, as SVG. The
# loss of updates is in nats per token; the last validation tells what a token is in bytes.
draw_curve() {
  local run=$1 bigram=$2
  local number='[0-9.eE+-]*'
  # Of a line {"step": 1, "loss": 2, ...}: step, loss and bits per byte, where they are.
  field() { echo ".*\"$1\": *\\($number\\),\{0,1\}"; }
  sed -n "/\"valid\"/s/$(field step)$(field loss)$(field bits_per_byte).*/\1 \3 \2/p" \
    "$run/metrics.jsonl" >"$scratch/valid"
  sed -n "/\"lr\"/s/$(field step)$(field loss).*/\1 \2/p" "$run/metrics.jsonl" >"$scratch/steps"
  [[ -s $scratch/valid && -s $scratch/steps ]] || return 1
  awk 'NR == FNR { scale = $2 / $3; next } { print $1, $2 * scale }' \
    "$scratch/valid" "$scratch/steps" >"$scratch/train-curve"
  (cd "$scratch" && gnuplot <<PLOT) >"$run/curve.svg"
set terminal svg size 720,420 font "sans,13" background "white"
set xlabel "updates"
set ylabel "bits per byte"
set key top right
set grid
set yrange [0:*]
plot "train-curve" with lines lc rgb "#9bb7d4" title "train", \
  "valid" using 1:2 with linespoints pt 7 lc rgb "#1f4e79" title "valid", \
  $bigram with lines dt 2 lc rgb "#a04000" title "counts of pairs (test)"
PLOT
}
