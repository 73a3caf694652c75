// The Vercel ai SDK with @ai-sdk/openai-compatible: text, streams, tools, objects, errors.

import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { QUESTION, place, proved } from "./proving.mjs";

const provider = createOpenAICompatible({
  name: "hotprompt",
  baseURL: place.url,
  apiKey: "none",
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const model = provider(place.model);
const asked = { model, prompt: QUESTION, temperature: 0, maxOutputTokens: 24, maxRetries: 0 };
const Review = z.object({ sentiment: z.enum(["positive", "negative"]), stars: z.number().int().min(1).max(5) });

async function chat() {
  const whole = await generateText(asked);
  assert.ok(whole.text);
  assert.ok(["stop", "length"].includes(whole.finishReason));
  assert.ok(whole.usage.inputTokens > 0 && whole.usage.outputTokens > 0);
  proved("generateText");
  return whole;
}

async function streams(whole) {
  const streamed = streamText(asked);
  let text = "";
  for await (const delta of streamed.textStream) {
    text += delta;
  }
  assert.equal(text, whole.text);
  assert.deepEqual((await streamed.usage).outputTokens, whole.usage.outputTokens);
  assert.equal(await streamed.finishReason, whole.finishReason);
  proved("streamText with usage");
  const stop = whole.text.slice(whole.text.length / 2).slice(0, 3);
  const stopped = await generateText({ ...asked, stopSequences: [stop] });
  assert.equal(stopped.text, whole.text.slice(0, whole.text.indexOf(stop)));
  proved("stopSequences");
  const sampled = { ...asked, temperature: 1, topP: 0.9, seed: 7, presencePenalty: 0.5, frequencyPenalty: 0.5 };
  assert.equal((await generateText(sampled)).text, (await generateText(sampled)).text);
  proved("seed, topP, penalties");
}

async function tools() {
  for (const ask of [generateText, streamText]) {
    const cities = [];
    const result = ask({
      ...asked,
      maxOutputTokens: 120,
      prompt: "How is the weather in Rome tomorrow?",
      tools: {
        getWeather: tool({
          description: "The weather of a city.",
          inputSchema: z.object({ city: z.enum(["Paris", "Rome"]) }),
          execute: async ({ city }) => {
            cities.push(city);
            return { sky: "sunny" };
          },
        }),
      },
      prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }),
      stopWhen: stepCountIs(2),
    });
    const steps = await (await result).steps;
    assert.equal(steps.length, 2);
    assert.equal(steps[0].finishReason, "tool-calls");
    assert.ok(cities.length >= 1);
    assert.ok(steps[1].text);
  }
  proved("tools with a round trip, whole and streamed");
}

async function objects() {
  const form = { ...asked, maxOutputTokens: 120, output: Output.object({ schema: Review }) };
  const whole = (await generateText(form)).output;
  assert.deepEqual(Review.parse(whole), whole);
  const streamed = streamText(form);
  let last = null;
  for await (const partial of streamed.partialOutputStream) {
    last = partial;
  }
  assert.deepEqual(last, whole);
  proved("Output.object, whole and streamed");
}

async function errors() {
  const unknown = await generateText({ ...asked, model: provider("nobody") }).catch((error) => error);
  assert.ok(APICallError.isInstance(unknown));
  assert.equal(unknown.statusCode, 404);
  assert.equal(unknown.data.error.code, "model_not_found");
  proved("errors");
}

const whole = await chat();
await streams(whole);
await tools();
await objects();
await errors();
