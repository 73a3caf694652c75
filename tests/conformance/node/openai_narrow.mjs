// openai for Node, on a server with keys that computes one request at a time and lets one wait.

import assert from "node:assert/strict";
import OpenAI, { AuthenticationError, InternalServerError } from "openai";
import { HOG, KEY, place, proved } from "./proving.mjs";

const statuses = [];
const options = {
  baseURL: place.url,
  maxRetries: 0,
  fetch: async (...request) => {
    const response = await fetch(...request);
    statuses.push(response.status);
    return response;
  },
};
const client = new OpenAI({ ...options, apiKey: KEY });
const asked = { model: place.model, messages: [{ role: "user", content: "Hello." }], max_tokens: 2 };

async function hog() {
  const stream = await client.chat.completions.create({ ...asked, ...HOG, stream: true });
  const chunks = stream[Symbol.asyncIterator]();
  await chunks.next();
  return stream;
}

async function keys() {
  const stranger = new OpenAI({ ...options, apiKey: "wrong" });
  const error = await stranger.chat.completions.create(asked).catch((error) => error);
  assert.ok(error instanceof AuthenticationError);
  assert.equal(error.code, "invalid_api_key");
  proved("401 for a wrong key");
}

async function hangingUp() {
  for (let time = 0; time < 3; time += 1) {
    (await hog()).controller.abort(); // the next one begins only when this one is gone
  }
  await client.chat.completions.create(asked, { timeout: 20_000 });
  proved("a stream that is aborted ends its request");
}

async function retries() {
  const running = await hog();
  const pair = [1, 2].map(() => client.chat.completions.create(asked).catch((error) => error));
  const refused = await Promise.race(pair);
  assert.ok(refused instanceof InternalServerError);
  assert.equal(refused.status, 503);
  assert.ok(Number(refused.headers.get("retry-after")) >= 1);
  proved("503 with Retry-After from a full server");
  statuses.length = 0;
  const patient = client.chat.completions.create(asked, { maxRetries: 8 });
  while (!statuses.includes(503)) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  running.controller.abort();
  assert.equal((await patient).choices.length, 1);
  await Promise.all(pair);
  proved("a refused request is tried again");
}

await keys();
await hangingUp();
await retries();
