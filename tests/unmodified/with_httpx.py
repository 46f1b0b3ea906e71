"""Does what standard input says, line by line, with httpx on one connection; with the argument 2 over HTTP/2."""

import json
import sys

import httpx

NOTE = {"title": "a note", "product": "lucidchart"}

http2 = sys.argv[1:] == ["2"]
with httpx.Client(http2=http2) as client:
    for line in sys.stdin:
        step = line.strip()
        if step == "get":
            response = client.get("https://api.lucid.co/users/me/profile")
        else:
            response = client.post("https://api.lucid.co/documents", json=NOTE)
        response.raise_for_status()
        if http2 and response.http_version != "HTTP/2":
            sys.exit(f"{response.http_version} instead of HTTP/2")
        print(step, json.dumps(response.json()), flush=True)
