// The Vercel ai SDK on a server that computes one request at a time and lets one wait: it tries again, and hangs up.

import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";
import { HOG, KEY, place, proved } from "./proving.mjs";

const statuses = [];
const provider = createOpenAICompatible({
  name: "hotprompt",
  baseURL: place.url,
  apiKey: KEY,
  fetch: async (...request) => {
    const response = await fetch(...request);
    statuses.push(response.status);
    return response;
  },
  transformRequestBody: (body) => (body.max_tokens === HOG.max_tokens ? { ...body, ...HOG } : body),
});
const asked = { model: provider(place.model), prompt: "Hello.", maxOutputTokens: 2 };

async function hog() {
  const controller = new AbortController();
  const streamed = streamText({ ...asked, maxOutputTokens: HOG.max_tokens, abortSignal: controller.signal, maxRetries: 0 });
  const parts = streamed.textStream[Symbol.asyncIterator]();
  await parts.next();
  return controller;
}

async function hangingUp() {
  for (let time = 0; time < 3; time += 1) {
    (await hog()).abort(); // the next one begins only when this one is gone
  }
  await generateText(asked);
  proved("abortSignal ends a request");
}

async function retries() {
  const running = await hog();
  const pair = [1, 2].map(() => generateText({ ...asked, maxRetries: 0 }).catch((error) => error));
  const refused = await Promise.race(pair);
  assert.equal(refused.statusCode, 503);
  statuses.length = 0;
  const patient = generateText({ ...asked, maxRetries: 5 });
  while (!statuses.includes(503)) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  running.abort();
  assert.ok((await patient).usage.outputTokens > 0);
  await Promise.all(pair);
  proved("a refused request is tried again");
}

await hangingUp();
await retries();
