#!/bin/sh
# git as people call it: once for each line of standard input. It asks for a list of references, which anything is that has
# no tab in its lines: an empty one.
while read -r step; do
  git ls-remote https://api.lucid.co/sandbox/echo/notes.git || exit
  echo "$step {}"
done
