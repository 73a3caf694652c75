// Asks for one answer and keeps it up to date while it streams: text, state, and how fast it came. Knows no DOM.

import { ApiError, chunks } from "./api.js";

const PATH = "v1/chat/completions";

/** Fill the answer; `onChange` is called after each change. Never raises: what goes wrong is told in the answer. */
export async function fillAnswer(api, answer, body, { signal, onChange }) {
  const clock = createClock();
  try {
    const request = { ...body, stream: true, stream_options: { include_usage: true } };
    const response = await api.request(PATH, { method: "POST", body: request, signal });
    answer.version = response.headers.get("x-hotprompt-adapter");
    for await (const chunk of chunks(response)) {
      take(answer, chunk, clock);
      onChange();
    }
    answer.state = "done";
  } catch (error) {
    fail(answer, error, signal);
  }
  answer.stats = { ...answer.stats, ...clock.read(answer.stats?.tokens ?? null) };
  onChange();
}

function take(answer, chunk, clock) {
  const choice = chunk.choices[0];
  if (choice) {
    const text = choice.delta.content ?? "";
    const thinking = choice.delta.reasoning_content ?? "";
    if (text || thinking) clock.tick();
    answer.text += text;
    answer.thinking += thinking;
    answer.state = "streaming";
    answer.stats = { ...answer.stats, ...clock.read(null) };
    if (choice.finish_reason) answer.stats.finish = choice.finish_reason;
  }
  if (chunk.usage) {
    answer.stats = {
      ...answer.stats,
      tokens: chunk.usage.completion_tokens,
      promptTokens: chunk.usage.prompt_tokens,
    };
  }
}

function fail(answer, error, signal) {
  if (signal.aborted || error.name === "AbortError") {
    answer.state = "stopped";
    return;
  }
  if (!(error instanceof ApiError)) throw error;
  const { status, code, message, retryAfter } = error;
  answer.state = "failed";
  answer.error = { status, code, message, retryAfter, time: Date.now() };
}

/** Milliseconds to the first token, and tokens per second between the first and the last. */
function createClock() {
  const begin = performance.now();
  let first = null;
  let last = null;

  return {
    tick() {
      last = performance.now();
      first ??= last;
    },
    read(tokens) {
      const seconds = (last - first) / 1000;
      return {
        firstAfter: first === null ? null : first - begin,
        rate: tokens !== null && tokens > 1 && seconds > 0 ? (tokens - 1) / seconds : null,
      };
    },
  };
}
