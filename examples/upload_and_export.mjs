#!/usr/bin/env node
// Imports a draw.io diagram, then downloads a picture of the document that it became.
//
// Written for Lucid itself, with a token that has long expired. Through the proxy it works as it stands:
//
//     lucid-proxy serve
//     node examples/upload_and_export.mjs http://127.0.0.1:8118
//
// Needs Node 20 or later and no packages.

import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const base = process.argv[2] ?? "https://api.lucid.co";
const headers = {
  Authorization: "Bearer oauth2-stale-upload-7b21e9",
  "Lucid-Api-Version": "1",
};

const DIAGRAM = `<mxfile><diagram name="Page-1"><mxGraphModel><root>
<mxCell id="0"/><mxCell id="1" parent="0"/>
<mxCell id="2" value="Hello" vertex="1" parent="1"><mxGeometry width="120" height="60" as="geometry"/></mxCell>
</root></mxGraphModel></diagram></mxfile>`;
const PNG_SIGNATURE = Buffer.from("89504e470d0a1a0a", "hex");

async function call(path, status, options) {
  const response = await fetch(base + path, { ...options, headers: { ...headers, ...options.headers } });
  if (response.status !== status) {
    throw new Error(`${path}: ${response.status} instead of ${status}: ${await response.text()}`);
  }
  return response;
}

const form = new FormData();
form.append("file", new Blob([DIAGRAM], { type: "x-application/vnd.lucid.drawio" }), "hello.drawio");
form.append("product", "lucidchart");
form.append("title", "Hello from draw.io");
const imported = await call("/documents/import", 201, { method: "POST", body: form });
const { documentId, title } = await imported.json();
console.log(`imported "${title}" as ${documentId}`);

const exported = await call(`/documents/${documentId}`, 200, { headers: { Accept: "image/png" } });
const picture = Buffer.from(await exported.arrayBuffer());
if (!picture.subarray(0, PNG_SIGNATURE.length).equals(PNG_SIGNATURE)) {
  throw new Error(`what came is no PNG: ${exported.headers.get("content-type")}, ${picture.length} bytes`);
}
const file = join(await mkdtemp(join(tmpdir(), "lucid-")), "page-1.png");
await writeFile(file, picture);
console.log(`exported ${picture.length} bytes to ${file}`);
