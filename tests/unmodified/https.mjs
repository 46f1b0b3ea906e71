// Does what standard input says, line by line, with Node's https, on a connection that is kept.

import { Agent, request } from "node:https";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";

const agent = new Agent({ keepAlive: true });
const note = JSON.stringify({ title: "a note", product: "lucidchart" });

function ask(method, url, body) {
  const headers = { Authorization: "Bearer oauth2-stale-1f8c2b", "Content-Type": "application/json" };
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, headers, agent }, async (response) => {
      const answer = await text(response);
      if (response.statusCode >= 300) reject(new Error(`${response.statusCode}: ${answer}`));
      else resolve(answer);
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

for await (const step of createInterface({ input: process.stdin })) {
  const answer =
    step === "get"
      ? ask("GET", "https://api.lucid.co/users/me/profile")
      : ask("POST", "https://api.lucid.co/documents", note);
  console.log(step, await answer);
}
agent.destroy();
