"""The steps with httpx, over HTTP/1.1 or, with a fourth argument HTTP/2, over that."""

import sys

import httpx

from steps import BASE, CA, CHUNKED, FIRST, LARGE, LAST, NOTE, UPLOAD
from steps import chunks, hash_of, run, same, step, told, upload

VERSION = sys.argv[4]
# A stream of events is silent for as long as nothing happens.
client = httpx.Client(verify=CA, http2=VERSION == "HTTP/2", timeout=60)


def checked(response, status):
    same("status", response.status_code, status)
    same("version", response.http_version, VERSION)
    return response


def ask(status, method, path, **options):
    return checked(client.request(method, BASE + path, **options), status)


@step
def get():
    same("content", ask(200, "GET", "/get").json(), {"title": "first"})


@step
def post():
    same("content", ask(200, "POST", "/post", json=NOTE).json(), {"received": NOTE})


@step
def multipart():
    with open(UPLOAD, "rb") as file:
        response = ask(200, "POST", "/multipart", data={"title": "a file"}, files={"file": file})
    same("form", response.json(), {"title": "a file", "file": {"name": "upload.bin", **told(upload())}})


@step
def chunked():
    response = ask(200, "POST", "/chunked", content=chunks())
    same("upload", response.json(), {"chunked": True, **told(upload()[:CHUNKED])})


@step
def download():
    with client.stream("GET", BASE + "/download") as response:
        checked(response, 200)
        same("length", int(response.headers["Content-Length"]), LARGE)
        same("hash", hash_of(response.iter_bytes()), response.headers["X-Sha256"])


@step
def gzip():
    response = ask(200, "GET", "/gzip")
    same("coding", response.headers["Content-Encoding"], "gzip")
    same("hash", hash_of([response.content]), response.headers["X-Sha256"])


@step
def gzip_bytes():
    with client.stream("GET", BASE + "/gzip-bytes") as response:
        checked(response, 200)
        same("hash", hash_of(response.iter_raw()), response.headers["X-Sha256"])


@step
def head():
    response = ask(200, "HEAD", "/head")
    same("length", int(response.headers["Content-Length"]), LARGE)
    same("content", response.content, b"")


@step
def no_content():
    same("content", ask(204, "DELETE", "/no-content").content, b"")


@step
def not_modified():
    response = ask(304, "GET", "/not-modified", headers={"If-None-Match": '"first"'})
    same("tag", response.headers["ETag"], '"first"')
    same("content", response.content, b"")


@step
def range():
    response = ask(206, "GET", "/range", headers={"Range": f"bytes={FIRST}-{LAST}"})
    same("range", response.headers["Content-Range"], f"bytes {FIRST}-{LAST}/{LARGE}")
    same("hash", hash_of([response.content]), response.headers["X-Sha256"])


@step
def events():
    with client.stream("GET", BASE + "/events") as response:
        checked(response, 200)
        # Its lines end as they came in some versions.
        lines = (line.rstrip("\n") for line in response.iter_lines())
        same("event", next(lines), "data: first")
        ask(204, "POST", "/events/seen")
        same("rest", [line for line in lines if line], ["data: second"])


@step
def early():
    same("content", ask(413, "POST", "/early", content=upload()).text, "too much")


run()
