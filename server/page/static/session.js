// What happens in a conversation: sending, stopping, answering anew. Keeps the data, and tells who shows it of changes.

import { fillAnswer } from "./asking.js";
import { bodyOfAnswer, createAnswer, isRunning, keep } from "./conversation.js";

/**
 * `onStructure()` after exchanges came or went, `onAnswer(answer)` after each change of an answer.
 * Leaving the page ends what runs, so that the server's work ends too.
 */
export function createSession(api, conversation, { onStructure, onAnswer }) {
  const running = new Map(); // by answer: its AbortController

  /** Say something to every lane. */
  function send(text) {
    const exchange = { text, answers: {} };
    conversation.exchanges.push(exchange);
    for (const lane of conversation.lanes) exchange.answers[lane.id] = createAnswer(conversation, lane);
    onStructure();
    for (const lane of conversation.lanes) start(exchange, lane);
  }

  /** Say something else in an exchange's place; what came after it is gone. */
  function resend(exchange, text) {
    cut(conversation.exchanges.indexOf(exchange));
    send(text);
  }

  /** Answer an exchange anew in one lane, with the model that the lane has now; only the last one may be. */
  function regenerate(exchange, lane) {
    stop(exchange.answers[lane.id]);
    exchange.answers[lane.id] = createAnswer(conversation, lane);
    onStructure();
    start(exchange, lane);
  }

  async function start(exchange, lane) {
    const answer = exchange.answers[lane.id];
    const leaving = new AbortController();
    running.set(answer, leaving);
    onAnswer(answer);
    try {
      const body = bodyOfAnswer(conversation, lane, exchange);
      await fillAnswer(api, answer, body, { signal: leaving.signal, onChange: () => onAnswer(answer) });
    } finally {
      running.delete(answer);
      keep(conversation);
      onAnswer(answer);
    }
  }

  /** End one answer where it is. */
  function stop(answer) {
    running.get(answer)?.abort();
  }

  function stopAll() {
    for (const leaving of running.values()) leaving.abort();
  }

  /** Begin anew with the same models and settings. */
  function clear() {
    cut(0);
    onStructure();
    keep(conversation);
  }

  function cut(index) {
    for (const exchange of conversation.exchanges.splice(index))
      Object.values(exchange.answers).filter(isRunning).forEach(stop);
  }

  window.addEventListener("pagehide", () => {
    keep(conversation);
    stopAll();
  });

  return { send, resend, regenerate, stop, stopAll, clear };
}
