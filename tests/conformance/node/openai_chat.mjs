// openai for Node: conversations, sampling, structured output, errors.

import assert from "node:assert/strict";
import OpenAI, { BadRequestError, NotFoundError } from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { QUESTION, place, proved } from "./proving.mjs";

const client = new OpenAI({ baseURL: place.url, apiKey: "none", maxRetries: 0 });
const asked = { model: place.model, messages: [{ role: "user", content: QUESTION }], temperature: 0, max_tokens: 24 };

async function chat() {
  const whole = await client.chat.completions.create(asked);
  assert.equal(whole.object, "chat.completion");
  assert.ok(whole.choices[0].message.content);
  assert.ok(["stop", "length"].includes(whole.choices[0].finish_reason));
  assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens);
  proved("chat");
  const messages = [...asked.messages, whole.choices[0].message, { role: "user", content: "Say it again." }];
  const second = await client.chat.completions.create({ ...asked, messages });
  assert.ok(second.usage.prompt_tokens > whole.usage.prompt_tokens);
  proved("an answer's message sent back");
  return whole;
}

async function streams(whole) {
  const stream = await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } });
  let text = "";
  let usage = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
  proved("stream");
  proved("stream_options.include_usage");
  let heard = "";
  const helper = client.chat.completions.stream(asked).on("content", (delta) => (heard += delta));
  const final = await helper.finalChatCompletion();
  assert.equal(heard, text);
  assert.equal(final.choices[0].message.content, text);
  proved(".stream() helper");
}

async function sampling(whole) {
  const text = whole.choices[0].message.content;
  const several = await client.chat.completions.create({ ...asked, n: 3 });
  assert.deepEqual(several.choices.map((choice) => choice.message.content), [text, text, text]);
  proved("n");
  const told = await client.chat.completions.create({ ...asked, logprobs: true, top_logprobs: 2 });
  const tokens = told.choices[0].logprobs.content;
  assert.equal(Buffer.from(tokens.flatMap((token) => token.bytes)).toString(), text);
  assert.ok(tokens.every((token) => token.top_logprobs.length === 2 && token.logprob <= 0));
  proved("logprobs, top_logprobs");
  const stop = text.slice(text.length / 2).slice(0, 3);
  const stopped = await client.chat.completions.create({ ...asked, stop });
  assert.equal(stopped.choices[0].message.content, text.slice(0, text.indexOf(stop)));
  proved("stop");
}

async function structured() {
  const Review = z.object({ sentiment: z.enum(["positive", "negative"]), stars: z.number().int().min(1).max(5) });
  const request = { ...asked, max_tokens: 120, response_format: zodResponseFormat(Review, "review") };
  const whole = await client.chat.completions.parse(request);
  assert.deepEqual(Review.parse(whole.choices[0].message.parsed), whole.choices[0].message.parsed);
  proved(".parse() with zod");
  const streamed = await client.chat.completions.stream(request).finalChatCompletion();
  assert.deepEqual(streamed.choices[0].message.parsed, whole.choices[0].message.parsed);
  proved(".stream() with zod");
}

async function errors() {
  const unknown = await client.chat.completions.create({ ...asked, model: "nobody" }).catch((error) => error);
  assert.ok(unknown instanceof NotFoundError);
  assert.equal(unknown.code, "model_not_found");
  proved("404 for an unknown model");
  for (const [field, value] of [["temperature", 3], ["n", 0], ["nonsense", 1]]) {
    const refused = await client.chat.completions.create({ ...asked, [field]: value }).catch((error) => error);
    assert.ok(refused instanceof BadRequestError);
    assert.equal(refused.param, field);
    assert.ok(refused.requestID);
  }
  proved("400 names the field");
}

const whole = await chat();
await streams(whole);
await sampling(whole);
await structured();
await errors();
