// Does what standard input says, line by line, with axios. PACKAGES names the directory where it is installed.

import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

const axios = createRequire(join(process.env.PACKAGES, "package.json"))("axios");
const client = axios.create({ baseURL: "https://api.lucid.co", headers: { Authorization: "Bearer oauth2-stale-1f8c2b" } });

for await (const step of createInterface({ input: process.stdin })) {
  const { data } =
    step === "get"
      ? await client.get("/users/me/profile")
      : await client.post("/documents", { title: "a note", product: "lucidchart" });
  console.log(step, JSON.stringify(data));
}
