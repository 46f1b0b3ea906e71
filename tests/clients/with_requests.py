"""The steps with requests, over HTTP/1.1."""

import requests

from steps import BASE, CA, CHUNKED, FIRST, LARGE, LAST, NOTE, UPLOAD
from steps import chunks, hash_of, run, same, step, told, upload

session = requests.Session()
session.verify = CA


def ask(status, method, path, **options):
    response = session.request(method, BASE + path, **options)
    same("status", response.status_code, status)
    return response


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
    response = ask(200, "POST", "/chunked", data=chunks())
    same("upload", response.json(), {"chunked": True, **told(upload()[:CHUNKED])})


@step
def download():
    with ask(200, "GET", "/download", stream=True) as response:
        same("length", int(response.headers["Content-Length"]), LARGE)
        same("hash", hash_of(response.iter_content(1 << 16)), response.headers["X-Sha256"])


@step
def gzip():
    response = ask(200, "GET", "/gzip")
    same("coding", response.headers["Content-Encoding"], "gzip")
    same("hash", hash_of([response.content]), response.headers["X-Sha256"])


@step
def gzip_bytes():
    with ask(200, "GET", "/gzip-bytes", stream=True) as response:
        content = response.raw.read(decode_content=False)
        same("hash", hash_of([content]), response.headers["X-Sha256"])


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
    with ask(200, "GET", "/events", stream=True) as response:
        lines = response.iter_lines(chunk_size=1)
        same("event", next(lines), b"data: first")
        ask(204, "POST", "/events/seen")
        same("rest", list(lines), [b"", b"data: second", b""])


@step
def early():
    with open(UPLOAD, "rb") as file:
        same("content", ask(413, "POST", "/early", data=file).text, "too much")


run()
