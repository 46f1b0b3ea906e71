#!/bin/sh
# Says who is logged in, then prints the titles of all documents that match "plan".
#
# Written for Lucid itself, with a token that has long expired. Through the proxy it works as it stands:
#
#     lucid-proxy serve
#     sh examples/search.sh http://127.0.0.1:8118
#
# Needs curl 7.76 or later.
set -eu

base=${1:-https://api.lucid.co}
token=oauth2-stale-search-c93a40

call() { # path, more options of curl
  path=$1
  shift
  curl -sS --fail-with-body --max-time 60 \
    -H "Authorization: Bearer $token" -H "Lucid-Api-Version: 1" "$@" "$base$path"
}

# The text of each field with that name, one a line. Enough for names and titles, which seldom have quotes in them.
field() {
  grep -o "\"$1\":\"[^\"]*\"" | sed 's/^[^:]*:"//; s/"$//'
}

# Answers are kept before they are looked at: in a pipe curl's failure would be lost.
profile=$(call /users/me/profile)
echo "logged in as $(echo "$profile" | field fullName)"

found=$(call /documents/search -H "Content-Type: application/json" -d '{"keywords":"plan"}')
echo "$found" | field title
