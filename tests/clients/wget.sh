#!/bin/sh
# The steps with wget, over HTTP/1.1: BASE CA DIRECTORY. It makes no forms, and sends nothing without a length.
set -u
base=$1 ca=$2
cd "$3" || exit

# Asks, and wants a status; the answer is in the files log and body then.
ask() { # STATUS PATH OPTION…
  rm -f body
  fetch "$@" -O body
}

# The same, with the answer in a file that has the name of the resource.
fetch() {
  wanted="HTTP/1.1 $1" url=$base$2
  shift 2
  # It ends with 8 where the status is an error, which is judged here.
  wget --no-config --tries=1 --ca-certificate="$ca" -S -o log --content-on-error "$@" "$url" || [ $? = 8 ]
  same status "$(sed -n 's/^ *\(HTTP[^ ]* [0-9][0-9]*\).*/\1/p' log)" "$wanted"
}

same() { # WHAT FOUND WANTED
  [ "$2" = "$3" ] || { echo "$1: $2 instead of $3"; exit 1; }
}

hash() { sha256sum "$@" | cut -d ' ' -f 1; }
field() { tr -d '\r' <log | sed -n "s/^ *$1: //Ip" | tail -n 1; }

step_get() {
  ask 200 /get
  same content "$(cat body)" '{"title":"first"}'
}

step_post() {
  ask 200 /post --header='Content-Type: application/json' --post-data='{"size":3,"title":"a note"}'
  same content "$(cat body)" '{"received":{"size":3,"title":"a note"}}'
}

step_download() {
  ask 200 /download
  same length "$(field content-length)" 52428800
  same hash "$(hash body)" "$(field x-sha256)"
}

step_gzip() {
  ask 200 /gzip --compression=gzip
  same coding "$(field content-encoding)" gzip
  same hash "$(hash body)" "$(field x-sha256)"
}

step_gzip_bytes() {
  ask 200 /gzip-bytes --header='Accept-Encoding: gzip'
  same hash "$(hash body)" "$(field x-sha256)"
}

step_head() {
  ask 200 /head --method=HEAD
  same length "$(field content-length)" 52428800
}

step_no_content() {
  ask 204 /no-content --method=DELETE
}

step_not_modified() {
  echo 'content that it has' >not-modified
  fetch 304 /not-modified -N
  same content "$(cat not-modified)" 'content that it has'
}

# A download that was interrupted goes on in its last MiB.
step_range() {
  truncate -s 51380224 range
  fetch 206 /range -c
  same range "$(field content-range)" 'bytes 51380224-52428799/52428800'
  same hash "$(tail -c 1048576 range | hash)" "$(field x-sha256)"
  same length "$(wc -c <range)" 52428800
}

step_events() {
  wget --no-config --tries=1 --ca-certificate="$ca" -q -O - "$base/events" | {
    read -r line
    same event "$line" 'data: first'
    ask 204 /events/seen --method=POST
    same rest "$(cat)" "$(printf '\ndata: second')"
  }
}

step_early() {
  ask 413 /early --post-file=upload.bin
  same content "$(cat body)" 'too much'
}

failed=0
for step in get post download gzip gzip-bytes head no-content not-modified range events early; do
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
