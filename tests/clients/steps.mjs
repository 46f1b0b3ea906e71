// What the programs in JavaScript have in common. Their arguments: BASE CA DIRECTORY; NODE_EXTRA_CA_CERTS names CA too.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";

export const [BASE, , DIRECTORY] = process.argv.slice(2);
export const UPLOAD = join(DIRECTORY, "upload.bin");
export const upload = readFileSync(UPLOAD);
// What is sent without its length is the beginning of that file.
export const chunked = upload.subarray(0, 5 << 20);
export const LARGE = 50 << 20;
export const [FIRST, LAST] = [1 << 20, (2 << 20) - 1];
export const NOTE = { title: "a note", tags: ["ä", "ö"], size: 3 };

export const hash = (content) => createHash("sha256").update(content).digest("hex");

// What upstream should tell of content that it got.
export const told = (content) => ({ length: content.length, sha256: hash(content) });

// The beginning of the file, piece by piece.
export async function* chunks() {
  for (let begin = 0; begin < chunked.length; begin += 1 << 16) yield chunked.subarray(begin, begin + (1 << 16));
}

// Runs all steps, and ends with 1 where one of them failed.
export async function run(steps) {
  let failed = false;
  for (const [name, step] of Object.entries(steps)) {
    try {
      await step();
      console.log(`ok ${name}`);
    } catch (error) {
      failed = true;
      const causes = [error, error.cause].filter(Boolean).map((cause) => String(cause.message ?? cause));
      console.log(`failed ${name} ${causes.join(": ").replaceAll("\n", " ")}`);
    }
  }
  // Content that a failed step has left unread would keep the process.
  process.exit(failed ? 1 : 0);
}
