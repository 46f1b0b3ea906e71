#!/usr/bin/env python3
"""Prints every user of the account, page by page.

Written for Lucid itself, with a token that has long expired. Through the proxy it works as it stands:

    lucid-proxy serve
    python3 examples/list_users.py http://127.0.0.1:8118

Needs the module requests.
"""

import sys

import requests

BASE = sys.argv[1] if len(sys.argv) > 1 else "https://api.lucid.co"
HEADERS = {
    "Authorization": "Bearer oauth2-stale-list-users-0f6c1d",
    "Lucid-Api-Version": "1",
}


def pages(session, url):
    """Follows the Link header as it stands until there is none."""
    while url:
        response = session.get(url, timeout=60)
        response.raise_for_status()
        if response.status_code != 200:
            sys.exit(f"unexpected status {response.status_code} from {url}")
        yield response.json()
        url = response.links.get("next", {}).get("url")


def main():
    count = 0
    with requests.Session() as session:
        session.headers.update(HEADERS)
        for page in pages(session, f"{BASE}/users?pageSize=2"):
            for user in page:
                print(f"{user['userId']} {user['name']} <{user['email']}>")
                count += 1
    print(f"{count} users")


main()
