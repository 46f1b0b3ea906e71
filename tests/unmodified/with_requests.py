"""Does what standard input says, line by line, with requests on one connection."""

import json
import sys

import requests

NOTE = {"title": "a note", "product": "lucidchart"}

session = requests.Session()
# A token that died long ago.
session.headers["Authorization"] = "Bearer oauth2-stale-1f8c2b"
for line in sys.stdin:
    step = line.strip()
    if step == "get":
        response = session.get("https://api.lucid.co/users/me/profile")
    else:
        response = session.post("https://api.lucid.co/documents", json=NOTE)
    response.raise_for_status()
    print(step, json.dumps(response.json()), flush=True)
