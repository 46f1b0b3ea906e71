"""Does what standard input says, line by line, with aiohttp, which reads the environment only where it is told to."""

import asyncio
import json
import sys

import aiohttp

NOTE = {"title": "a note", "product": "lucidchart"}


async def main():
    async with aiohttp.ClientSession(trust_env=True, raise_for_status=True) as session:
        for line in sys.stdin:
            step = line.strip()
            if step == "get":
                request = session.get("https://api.lucid.co/users/me/profile")
            else:
                request = session.post("https://api.lucid.co/documents", json=NOTE)
            async with request as response:
                print(step, json.dumps(await response.json()), flush=True)


asyncio.run(main())
