// The steps with Node's own fetch, over HTTP/1.1.

import { deepEqual, equal } from "node:assert/strict";
import { openAsBlob } from "node:fs";

import { BASE, FIRST, LARGE, LAST, NOTE, UPLOAD, chunked, chunks, hash, run, told, upload } from "./steps.mjs";

async function ask(status, method, path, options) {
  const response = await fetch(BASE + path, { method, ...options });
  equal(response.status, status);
  return response;
}

const bytes = async (response) => Buffer.from(await response.arrayBuffer());

await run({
  async get() {
    deepEqual(await (await ask(200, "GET", "/get")).json(), { title: "first" });
  },
  async post() {
    const headers = { "Content-Type": "application/json" };
    const response = await ask(200, "POST", "/post", { headers, body: JSON.stringify(NOTE) });
    deepEqual(await response.json(), { received: NOTE });
  },
  async multipart() {
    const body = new FormData();
    body.append("title", "a file");
    body.append("file", await openAsBlob(UPLOAD), "upload.bin");
    const response = await ask(200, "POST", "/multipart", { body });
    deepEqual(await response.json(), { title: "a file", file: { name: "upload.bin", ...told(upload) } });
  },
  async chunked() {
    const body = ReadableStream.from(chunks());
    const response = await ask(200, "POST", "/chunked", { body, duplex: "half" });
    deepEqual(await response.json(), { chunked: true, ...told(chunked) });
  },
  async download() {
    const response = await ask(200, "GET", "/download");
    equal(Number(response.headers.get("Content-Length")), LARGE);
    equal(hash(await bytes(response)), response.headers.get("X-Sha256"));
  },
  async gzip() {
    const response = await ask(200, "GET", "/gzip");
    equal(response.headers.get("Content-Encoding"), "gzip");
    equal(hash(await bytes(response)), response.headers.get("X-Sha256"));
  },
  async head() {
    const response = await ask(200, "HEAD", "/head");
    equal(Number(response.headers.get("Content-Length")), LARGE);
    equal(await response.text(), "");
  },
  async "no-content"() {
    equal(await (await ask(204, "DELETE", "/no-content")).text(), "");
  },
  async "not-modified"() {
    const response = await ask(304, "GET", "/not-modified", { headers: { "If-None-Match": '"first"' } });
    equal(response.headers.get("ETag"), '"first"');
    equal(await response.text(), "");
  },
  async range() {
    const response = await ask(206, "GET", "/range", { headers: { Range: `bytes=${FIRST}-${LAST}` } });
    equal(response.headers.get("Content-Range"), `bytes ${FIRST}-${LAST}/${LARGE}`);
    equal(hash(await bytes(response)), response.headers.get("X-Sha256"));
  },
  async events() {
    const response = await ask(200, "GET", "/events");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    while (!text.endsWith("\n\n")) {
      const { value, done } = await reader.read();
      equal(done, false);
      text += value;
    }
    equal(text, "data: first\n\n");
    await ask(204, "POST", "/events/seen");
    for (let next = await reader.read(); !next.done; next = await reader.read()) text += next.value;
    equal(text, "data: first\n\ndata: second\n\n");
  },
  async early() {
    equal(await (await ask(413, "POST", "/early", { body: upload })).text(), "too much");
  },
});
