// A conversation with one to three models at once, as plain data. Knows no DOM and no server.
//
// An exchange is what the user said and the answer of each lane, by the lane's id. Each model is told of the exchanges
// that its own lane took part in.

import { createStorage } from "./storage.js";

const STORED = "hotprompt.chat";
const storage = createStorage("session");
export const MAX_LANES = 3;

/** A new, empty conversation with one lane; its model is null until it is known. */
function createConversation() {
  return { lanes: [{ id: 1, model: null }], exchanges: [], draft: "", sampling: { max_tokens: 512 }, system: "" };
}

/** What this tab had, if anything; an answer that was cut off by a reload is marked as stopped. */
export function restored() {
  try {
    const stored = JSON.parse(storage.get(STORED));
    if (stored === null) return createConversation();
    for (const exchange of stored.exchanges) {
      for (const answer of Object.values(exchange.answers)) if (isRunning(answer)) answer.state = "stopped";
    }
    return { ...createConversation(), ...stored };
  } catch {
    return createConversation();
  }
}

/** Keep it for a reload of this tab; where it is too large for that, it is not kept. */
export function keep(conversation) {
  storage.set(STORED, JSON.stringify(conversation));
}

/**
 * An answer that waits for its first token. `state`: waiting, streaming, done, stopped, failed. `asked` is what it was
 * asked with, beside the messages.
 */
export function createAnswer(conversation, { model }) {
  const asked = { model, system: conversation.system, sampling: { ...conversation.sampling } };
  return { model, asked, version: null, text: "", thinking: "", state: "waiting", error: null, stats: null };
}

export function isRunning(answer) {
  return answer.state === "waiting" || answer.state === "streaming";
}

/** Whether any answer runs now. */
export function hasRunning(conversation) {
  return conversation.exchanges.some((exchange) => Object.values(exchange.answers).some(isRunning));
}

/** One more lane, with the model of the last one. */
export function addLane(conversation) {
  const id = Math.max(...conversation.lanes.map((lane) => lane.id)) + 1;
  const lane = { id, model: conversation.lanes.at(-1).model };
  conversation.lanes.push(lane);
  return lane;
}

/** The body of a request for a lane's next answer, to `text`. */
export function nextBody(conversation, lane, text) {
  const { system, sampling, exchanges } = conversation;
  return bodyOf({ model: lane.model, system, sampling }, exchanges, lane, text);
}

/** The body of the request that a lane's answer in an exchange is made of. */
export function bodyOfAnswer({ exchanges }, lane, exchange) {
  return bodyOf(exchange.answers[lane.id].asked, exchanges.slice(0, exchanges.indexOf(exchange)), lane, exchange.text);
}

function bodyOf({ model, system, sampling }, exchanges, lane, text) {
  const messages = system.trim() ? [{ role: "system", content: system }] : [];
  for (const exchange of exchanges) {
    const answer = exchange.answers[lane.id];
    if (!answer?.text) continue;
    messages.push({ role: "user", content: exchange.text }, { role: "assistant", content: answer.text });
  }
  messages.push({ role: "user", content: text });
  return { model, messages, ...sampling };
}
