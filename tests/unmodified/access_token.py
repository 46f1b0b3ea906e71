"""Prints an access token: the one in token_info.json while it lives, else one that a refresh gives.

As Lucid's example does it, with the id and the secret of a client written into it, and a refresh token to begin with.
"""

import json
import os
import time

import requests

CLIENT = {"client_id": "YOUR_CLIENT_ID", "client_secret": "YOUR_CLIENT_SECRET"}
FILE = "token_info.json"


def load():
    if not os.path.exists(FILE):
        return {"refresh_token": "YOUR_REFRESH_TOKEN", "expires": 0}
    with open(FILE, encoding="utf-8") as file:
        return json.load(file)


def refresh(token):
    response = requests.post(
        "https://api.lucid.co/oauth2/token",
        json={"grant_type": "refresh_token", "refresh_token": token["refresh_token"], **CLIENT},
    )
    response.raise_for_status()
    with open(FILE, "w", encoding="utf-8") as file:
        json.dump(response.json(), file)
    return response.json()


token = load()
# In milliseconds.
if token["expires"] < time.time() * 1000:
    token = refresh(token)
print(token["access_token"])
