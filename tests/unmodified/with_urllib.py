"""Does what standard input says, line by line, with urllib."""

import json
import sys
from urllib.request import Request, urlopen

# A token that died long ago.
HEADERS = {"Authorization": "Bearer oauth2-stale-1f8c2b", "Lucid-Api-Version": "1"}
NOTE = {"title": "a note", "product": "lucidchart"}


def ask(path, data=None):
    headers = dict(HEADERS)
    if data is not None:
        data = json.dumps(data).encode()
        headers["Content-Type"] = "application/json"
    with urlopen(Request("https://api.lucid.co" + path, data, headers)) as response:
        return json.load(response)


for line in sys.stdin:
    step = line.strip()
    answer = ask("/users/me/profile") if step == "get" else ask("/documents", NOTE)
    print(step, json.dumps(answer), flush=True)
