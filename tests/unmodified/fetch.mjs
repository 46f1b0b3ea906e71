// Does what standard input says, line by line, with Node's fetch.

import { createInterface } from "node:readline";

// A token that died long ago.
const headers = { Authorization: "Bearer oauth2-stale-1f8c2b", "Content-Type": "application/json" };
const body = JSON.stringify({ title: "a note", product: "lucidchart" });

for await (const step of createInterface({ input: process.stdin })) {
  const response =
    step === "get"
      ? await fetch("https://api.lucid.co/users/me/profile", { headers })
      : await fetch("https://api.lucid.co/documents", { method: "POST", headers, body });
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  console.log(step, JSON.stringify(await response.json()));
}
