#!/bin/sh
# wget as people call it: once for each line of standard input.
# A token that died long ago.
token=oauth2-stale-1f8c2b

while read -r step; do
  case $step in
    get)
      answer=$(wget -q -O - --header="Authorization: Bearer $token" https://api.lucid.co/users/me/profile) || exit
      echo "get $answer"
      ;;
    post)
      answer=$(wget -q -O - --header="Authorization: Bearer $token" --header='Content-Type: application/json' \
        --post-data='{"title":"a note","product":"lucidchart"}' https://api.lucid.co/documents) || exit
      echo "post $answer"
      ;;
  esac
done
