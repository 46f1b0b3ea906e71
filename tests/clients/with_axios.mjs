// The steps with axios, over HTTP/1.1. PACKAGES names the directory where it is installed.

import { deepEqual, equal } from "node:assert/strict";
import { createRequire } from "node:module";
import { openAsBlob } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";

import { BASE, FIRST, LARGE, LAST, NOTE, UPLOAD, chunked, chunks, hash, run, told, upload } from "./steps.mjs";

const axios = createRequire(join(process.env.PACKAGES, "package.json"))("axios");
// Judged here: by itself it takes a 304 for an error.
const client = axios.create({ baseURL: BASE, validateStatus: () => true });

async function ask(status, method, url, options) {
  const response = await client.request({ method, url, ...options });
  equal(response.status, status);
  return response;
}

await run({
  async get() {
    deepEqual((await ask(200, "GET", "/get")).data, { title: "first" });
  },
  async post() {
    deepEqual((await ask(200, "POST", "/post", { data: NOTE })).data, { received: NOTE });
  },
  async multipart() {
    const data = new FormData();
    data.append("title", "a file");
    data.append("file", await openAsBlob(UPLOAD), "upload.bin");
    const response = await ask(200, "POST", "/multipart", { data });
    deepEqual(response.data, { title: "a file", file: { name: "upload.bin", ...told(upload) } });
  },
  async chunked() {
    const response = await ask(200, "POST", "/chunked", { data: Readable.from(chunks()) });
    deepEqual(response.data, { chunked: true, ...told(chunked) });
  },
  async download() {
    const response = await ask(200, "GET", "/download", { responseType: "stream" });
    equal(Number(response.headers["content-length"]), LARGE);
    equal(hash(await buffer(response.data)), response.headers["x-sha256"]);
  },
  async gzip() {
    const response = await ask(200, "GET", "/gzip", { responseType: "arraybuffer" });
    equal(hash(response.data), response.headers["x-sha256"]);
  },
  async "gzip-bytes"() {
    const response = await ask(200, "GET", "/gzip-bytes", { responseType: "arraybuffer", decompress: false });
    equal(response.headers["content-encoding"], "gzip");
    equal(hash(response.data), response.headers["x-sha256"]);
  },
  async head() {
    const response = await ask(200, "HEAD", "/head");
    equal(Number(response.headers["content-length"]), LARGE);
    equal(response.data, "");
  },
  async "no-content"() {
    equal((await ask(204, "DELETE", "/no-content")).data, "");
  },
  async "not-modified"() {
    const response = await ask(304, "GET", "/not-modified", { headers: { "If-None-Match": '"first"' } });
    equal(response.headers.etag, '"first"');
    equal(response.data, "");
  },
  async range() {
    const headers = { Range: `bytes=${FIRST}-${LAST}` };
    const response = await ask(206, "GET", "/range", { headers, responseType: "arraybuffer" });
    equal(response.headers["content-range"], `bytes ${FIRST}-${LAST}/${LARGE}`);
    equal(hash(response.data), response.headers["x-sha256"]);
  },
  async events() {
    const response = await ask(200, "GET", "/events", { responseType: "stream" });
    const events = response.data.setEncoding("utf8")[Symbol.asyncIterator]();
    let text = "";
    while (!text.endsWith("\n\n")) {
      const { value, done } = await events.next();
      equal(done ?? false, false);
      text += value;
    }
    equal(text, "data: first\n\n");
    await ask(204, "POST", "/events/seen");
    for (let next = await events.next(); !next.done; next = await events.next()) text += next.value;
    equal(text, "data: first\n\ndata: second\n\n");
  },
  async early() {
    equal((await ask(413, "POST", "/early", { data: upload })).data, "too much");
  },
});
