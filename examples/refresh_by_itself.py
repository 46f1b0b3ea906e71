#!/usr/bin/env python3
"""Says who is logged in and how many users the account has, and refreshes its tokens by itself as Lucid's example does.

Written for Lucid itself, with a refresh token that was spent long ago. Through the proxy it works as it stands:

    lucid-proxy serve
    python3 examples/refresh_by_itself.py http://127.0.0.1:8118

The proxy answers its refreshes with placeholders, which it keeps and sends like any token. Its token file must be its
own, not that of the proxy.

Needs the module requests.
"""

import json
import os
import sys
from datetime import datetime, timedelta

import requests

BASE = sys.argv[1] if len(sys.argv) > 1 else "https://api.lucid.co"
TOKEN_FILE = sys.argv[2] if len(sys.argv) > 2 else "my_token_info.json"
CLIENT_ID = "cid-of-this-script"
CLIENT_SECRET = "sec-of-this-script"
FIRST_REFRESH_TOKEN = "oauth2-stale-refresh-5d20b8"


def load():
    """The tokens of the last run; before the first one, a refresh token and nothing else."""
    if not os.path.exists(TOKEN_FILE):
        return {"refresh_token": FIRST_REFRESH_TOKEN}
    with open(TOKEN_FILE, encoding="utf-8") as file:
        return json.load(file)


def refresh(refresh_token):
    """Exchanges the refresh token for a new pair, and keeps it for the next run."""
    response = requests.post(
        f"{BASE}/oauth2/token",
        json={
            "grant_type": "refresh_token",
            "refresh_token": refresh_token,
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
        },
        timeout=60,
    )
    if response.status_code != 200:
        sys.exit(f"the refresh failed with {response.status_code}: {response.text}")
    tokens = response.json()
    if tokens["token_type"] != "bearer" or "offline_access" not in tokens["scopes"]:
        sys.exit(f"unusable tokens: type {tokens['token_type']}, scopes {tokens['scopes']}")
    expiration = datetime.fromtimestamp(tokens["expires"] / 1000)
    if abs(expiration - datetime.now() - timedelta(seconds=tokens["expires_in"])) > timedelta(seconds=5):
        sys.exit("expires and expires_in disagree")
    tokens["expiration"] = expiration.isoformat()
    with open(TOKEN_FILE, "w", encoding="utf-8") as file:
        json.dump(tokens, file)
    return tokens


def access_token():
    """A token that lives long enough, or one that died less than five minutes ago."""
    tokens = load()
    expiration = tokens.get("expiration")
    if not expiration or datetime.fromisoformat(expiration) <= datetime.now() - timedelta(minutes=5):
        tokens = refresh(tokens["refresh_token"])
    return tokens["access_token"]


def get(path):
    response = requests.get(
        f"{BASE}{path}",
        headers={"Authorization": f"Bearer {access_token()}", "Lucid-Api-Version": "1"},
        timeout=60,
    )
    response.raise_for_status()
    return response.json()


def main():
    print(f"logged in as {get('/users/me/profile')['fullName']}")
    print(f"the account has {len(get('/users'))} users")


main()
