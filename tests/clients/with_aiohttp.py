"""The steps with aiohttp, over HTTP/1.1."""

import asyncio
import ssl
import sys

import aiohttp

from steps import BASE, CA, CHUNKED, FIRST, LARGE, LAST, NOTE, UPLOAD
from steps import chunks, hash_of, report, same, step, steps, told, upload


class Asking:
    """A request whose answer must have a status."""

    def __init__(self, session, status, method, path, **options):
        self.status = status
        self.request = session.request(method, BASE + path, ssl=CONTEXT, **options)

    async def __aenter__(self):
        response = await self.request.__aenter__()
        if response.status != self.status:
            # It would take its connection with it.
            response.close()
        same("status", response.status, self.status)
        return response

    async def __aexit__(self, *error):
        return await self.request.__aexit__(*error)


@step
async def get(session):
    async with Asking(session, 200, "GET", "/get") as response:
        same("content", await response.json(content_type=None), {"title": "first"})


@step
async def post(session):
    async with Asking(session, 200, "POST", "/post", json=NOTE) as response:
        same("content", await response.json(), {"received": NOTE})


@step
async def multipart(session):
    form = aiohttp.FormData({"title": "a file"})
    with open(UPLOAD, "rb") as file:
        form.add_field("file", file)
        async with Asking(session, 200, "POST", "/multipart", data=form) as response:
            found = await response.json(content_type=None)
    same("form", found, {"title": "a file", "file": {"name": "upload.bin", **told(upload())}})


@step
async def chunked(session):
    async def pieces():
        for piece in chunks():
            yield piece

    async with Asking(session, 200, "POST", "/chunked", data=pieces()) as response:
        found = await response.json(content_type=None)
    same("upload", found, {"chunked": True, **told(upload()[:CHUNKED])})


@step
async def download(session):
    async with Asking(session, 200, "GET", "/download") as response:
        same("length", int(response.headers["Content-Length"]), LARGE)
        pieces = [piece async for piece in response.content.iter_chunked(1 << 16)]
        same("hash", hash_of(pieces), response.headers["X-Sha256"])


@step
async def gzip(session):
    async with Asking(session, 200, "GET", "/gzip") as response:
        same("coding", response.headers["Content-Encoding"], "gzip")
        same("hash", hash_of([await response.read()]), response.headers["X-Sha256"])


@step
async def gzip_bytes(_session):
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        async with Asking(session, 200, "GET", "/gzip-bytes") as response:
            same("hash", hash_of([await response.read()]), response.headers["X-Sha256"])


@step
async def head(session):
    async with Asking(session, 200, "HEAD", "/head") as response:
        same("length", int(response.headers["Content-Length"]), LARGE)
        same("content", await response.read(), b"")


@step
async def no_content(session):
    async with Asking(session, 204, "DELETE", "/no-content") as response:
        same("content", await response.read(), b"")


@step
async def not_modified(session):
    headers = {"If-None-Match": '"first"'}
    async with Asking(session, 304, "GET", "/not-modified", headers=headers) as response:
        same("tag", response.headers["ETag"], '"first"')
        same("content", await response.read(), b"")


@step
async def range(session):
    headers = {"Range": f"bytes={FIRST}-{LAST}"}
    async with Asking(session, 206, "GET", "/range", headers=headers) as response:
        same("range", response.headers["Content-Range"], f"bytes {FIRST}-{LAST}/{LARGE}")
        same("hash", hash_of([await response.read()]), response.headers["X-Sha256"])


@step
async def events(session):
    async with Asking(session, 200, "GET", "/events") as response:
        same("event", await response.content.readline(), b"data: first\n")
        async with Asking(session, 204, "POST", "/events/seen"):
            pass
        same("rest", await response.content.read(), b"\ndata: second\n\n")


@step
async def early(session):
    with open(UPLOAD, "rb") as file:
        async with Asking(session, 413, "POST", "/early", data=file) as response:
            same("content", await response.text(), "too much")


async def main():
    failed = False
    async with aiohttp.ClientSession() as session:
        for name, function in steps.items():
            try:
                await function(session)
                report(name)
            except Exception as error:
                failed = True
                report(name, error)
    return failed


CONTEXT = ssl.create_default_context(cafile=CA)
sys.exit(asyncio.run(main()))
