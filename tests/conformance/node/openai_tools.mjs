// openai for Node: tools, called when the request says so, with a round trip.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodFunction } from "openai/helpers/zod";
import { z } from "zod";
import { place, proved } from "./proving.mjs";

const client = new OpenAI({ baseURL: place.url, apiKey: "none", maxRetries: 0 });
const Where = z.object({ city: z.enum(["Paris", "Rome"]), days: z.number().int().min(1).max(3) });
const NAMED = { type: "function", function: { name: "get_weather" } };
const asked = {
  model: place.model,
  messages: [{ role: "user", content: "How is the weather in Rome tomorrow?" }],
  tools: [zodFunction({ name: "get_weather", description: "The weather of a city.", parameters: Where })],
  temperature: 0,
  max_tokens: 120,
  parallel_tool_calls: false,
};

function callOf(answer) {
  const [choice] = answer.choices;
  assert.equal(choice.finish_reason, "tool_calls");
  assert.equal(choice.message.tool_calls.length, 1);
  const [call] = choice.message.tool_calls;
  assert.equal(call.function.name, "get_weather");
  Where.parse(JSON.parse(call.function.arguments));
  return call;
}

async function choices() {
  callOf(await client.chat.completions.create({ ...asked, tool_choice: "required" }));
  proved("tool_choice required");
  const whole = await client.chat.completions.create({ ...asked, tool_choice: NAMED });
  callOf(whole);
  proved("tool_choice with a named function");
  return whole;
}

async function roundTrip(whole) {
  const call = callOf(whole);
  const messages = [
    ...asked.messages,
    whole.choices[0].message,
    { role: "tool", tool_call_id: call.id, content: '{"sky": "sunny"}' },
  ];
  const answer = await client.chat.completions.create({ ...asked, messages, tool_choice: "none" });
  assert.ok(answer.choices[0].message.content);
  proved("tool results in the next turn");
}

async function helpers(whole) {
  const expected = callOf(whole).function;
  const parsed = await client.chat.completions.parse({ ...asked, tool_choice: NAMED });
  assert.deepEqual(parsed.choices[0].message.tool_calls[0].function.parsed_arguments, JSON.parse(expected.arguments));
  proved(".parse() with tools");
  let deltas = 0;
  const stream = client.chat.completions
    .stream({ ...asked, tool_choice: NAMED })
    .on("tool_calls.function.arguments.delta", () => (deltas += 1));
  const streamed = callOf(await stream.finalChatCompletion());
  assert.equal(streamed.function.arguments, expected.arguments);
  assert.ok(deltas > 1);
  proved(".stream() with tools");
}

async function runner() {
  const cities = [];
  const weather = {
    type: "function",
    function: {
      name: "get_weather",
      description: "The weather of a city.",
      parameters: asked.tools[0].function.parameters,
      parse: (text) => Where.parse(JSON.parse(text)),
      function: ({ city }) => {
        cities.push(city);
        return "sunny";
      },
    },
  };
  // The runner ends after a call of a function that was asked for by name.
  const run = client.chat.completions.runTools({ ...asked, tools: [weather], tool_choice: NAMED });
  await run.done();
  assert.equal(cities.length, 1);
  assert.equal(run.messages.at(-1).role, "tool");
  proved("runTools()");
}

const whole = await choices();
await roundTrip(whole);
await helpers(whole);
await runner();
