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
