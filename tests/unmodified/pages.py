"""Prints the names of all users, page by page, each from the URL that the page before names."""

import requests

url = "https://api.lucid.co/users?pageSize=3"
while url:
    response = requests.get(url, headers={"Authorization": "Bearer oauth2-stale-1f8c2b"})
    response.raise_for_status()
    print(" ".join(user["name"].split()[0] for user in response.json()), flush=True)
    url = response.links.get("next", {}).get("url")
    if url and not url.startswith("https://api.lucid.co/"):
        raise SystemExit(f"{url} is not Lucid's")
