#!/bin/sh
# The steps with curl: BASE CA DIRECTORY OPTION, where OPTION is --http1.0, --http1.1 or --http2.
set -u
base=$1 ca=$2 option=$4
cd "$3" || exit
case $option in
  --http1.0) version=1 ;;
  --http1.1) version=1.1 ;;
  --http2) version=2 ;;
esac

# Asks, and wants a status and the version of HTTP; the answer is in the files head and body then.
ask() { # STATUS PATH OPTION…
  wanted="$1 $version" url=$base$2
  shift 2
  : >body
  found=$(curl -q -sS --cacert "$ca" "$option" -D head -o body -w '%{http_code} %{http_version}' "$@" "$url")
  same "status and version" "$found" "$wanted"
}

same() { # WHAT FOUND WANTED
  [ "$2" = "$3" ] || { echo "$1: $2 instead of $3"; exit 1; }
}

hash() { sha256sum "$@" | cut -d ' ' -f 1; }
field() { tr -d '\r' <head | sed -n "s/^$1: //Ip" | tail -n 1; }
told() { printf '"length":%d,"sha256":"%s"' "$(wc -c <"$1")" "$(hash "$1")"; }

step_get() {
  ask 200 /get
  same content "$(cat body)" '{"title":"first"}'
}

step_post() {
  ask 200 /post -H 'Content-Type: application/json' -d '{"size":3,"title":"a note"}'
  same content "$(cat body)" '{"received":{"size":3,"title":"a note"}}'
}

step_multipart() {
  ask 200 /multipart -F title='a file' -F file=@upload.bin
  same form "$(cat body)" "{\"file\":{$(told upload.bin | sed 's/,/,"name":"upload.bin",/')},\"title\":\"a file\"}"
}

step_chunked() {
  head -c 5242880 upload.bin >beginning
  ask 200 /chunked -X POST -T - <beginning
  same upload "$(cat body)" "{\"chunked\":true,$(told beginning)}"
}

step_download() {
  ask 200 /download
  same length "$(field content-length)" 52428800
  same hash "$(hash body)" "$(field x-sha256)"
}

step_gzip() {
  ask 200 /gzip --compressed
  same coding "$(field content-encoding)" gzip
  same hash "$(hash body)" "$(field x-sha256)"
}

step_gzip_bytes() {
  ask 200 /gzip-bytes -H 'Accept-Encoding: gzip'
  same hash "$(hash body)" "$(field x-sha256)"
}

step_head() {
  ask 200 /head -I
  same length "$(field content-length)" 52428800
}

step_no_content() {
  ask 204 /no-content -X DELETE
  same content "$(cat body)" ''
}

step_not_modified() {
  ask 304 /not-modified -H 'If-None-Match: "first"'
  same tag "$(field etag)" '"first"'
  same content "$(cat body)" ''
}

step_range() {
  ask 206 /range -r 1048576-2097151
  same range "$(field content-range)" 'bytes 1048576-2097151/52428800'
  same hash "$(hash body)" "$(field x-sha256)"
}

step_events() {
  curl -q -sS --cacert "$ca" "$option" -N -w '%{http_code}\n' "$base/events" | {
    read -r line
    same event "$line" 'data: first'
    ask 204 /events/seen -X POST
    same rest "$(cat)" "$(printf '\ndata: second\n\n200')"
  }
}

step_early() {
  ask 413 /early -X POST -T upload.bin
  same content "$(cat body)" 'too much'
}

failed=0
for step in get post multipart chunked download gzip gzip-bytes head no-content not-modified range events early; do
  [ "$step $option" = 'chunked --http1.0' ] && continue
  # Not in a condition, where the shell would not stop at the first failure.
  (set -e; "step_$(echo "$step" | tr - _)") >why 2>&1
  if [ $? = 0 ]; then
    echo "ok $step"
  else
    failed=1
    echo "failed $step $(tr '\n' ' ' <why)"
  fi
done
exit $failed
