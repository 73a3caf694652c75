// Asks the server: adds the key, asks the user for one on 401, and makes every refusal an ApiError.

import { t } from "./i18n.js";
import { events } from "./sse.js";

/** `status` is 0 when nothing answered, or when a stream broke; `retryAfter` is in seconds, or null. */
export class ApiError extends Error {
  constructor({ status, code = null, message, param = null, retryAfter = null }) {
    super(message);
    Object.assign(this, { status, code, param, retryAfter });
  }
}

/** Relative to where the page is, so that a proxy may put it below a prefix. */
export function urlOf(path) {
  return new URL(path, document.baseURI.replace(/#.*/, "")).href;
}

export function createApi(keys) {
  /** The whole answer, once its head is there. `body` is sent as JSON. Raises ApiError; AbortError by `signal`. */
  async function request(path, { method = "GET", body, signal } = {}) {
    for (;;) {
      const key = keys.current();
      const response = await fetched(urlOf(path), {
        method,
        signal,
        headers: { ...(body && { "content-type": "application/json" }), ...bearer(key) },
        body: body && JSON.stringify(body),
        credentials: "omit",
      });
      if (response.ok) return response;
      const error = errorOf(response.status, await response.text(), response.headers.get("retry-after"));
      if (!(await mayTryAgain(error, key))) throw error;
    }
  }

  async function json(path, options) {
    return (await request(path, options)).json();
  }

  /** Send a form, telling of progress from 0 to 1; gives the parsed answer. */
  async function upload(path, form, { onProgress, signal }) {
    for (;;) {
      const key = keys.current();
      const { status, text, retryAfter } = await sent(urlOf(path), form, { key, onProgress, signal });
      if (status >= 200 && status < 300) return JSON.parse(text);
      const error = errorOf(status, text, retryAfter);
      if (!(await mayTryAgain(error, key))) throw error;
    }
  }

  /** Whether the user gave a key after a refusal for want of one. */
  async function mayTryAgain(error, key) {
    const wantsAdmin = error.code === "admin_key_required";
    if (error.status !== 401 && !wantsAdmin) return false;
    if (keys.current() !== key) return true; // given meanwhile, for another request
    if (wantsAdmin) return keys.ask("key.admin");
    return keys.ask(key === null ? "key.needed" : "key.wrong");
  }

  return { request, json, upload };
}

/** The objects of a stream of chunks until `[DONE]`; raises ApiError for an error event or a stream that broke off. */
export async function* chunks(response) {
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError({ status: response.status, ...chunk.error });
      yield chunk;
    }
  } catch (error) {
    if (error instanceof ApiError || error.name === "AbortError") throw error;
    throw unreachable();
  }
  throw unreachable();
}

async function fetched(url, init) {
  try {
    return await fetch(url, init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
}

function sent(url, form, { key, onProgress, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", url);
    if (key !== null) request.setRequestHeader("authorization", bearer(key).authorization);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () =>
      resolve({
        status: request.status,
        text: request.responseText,
        retryAfter: request.getResponseHeader("retry-after"),
      });
    request.onerror = () => reject(unreachable());
    request.onabort = () => reject(new DOMException("aborted", "AbortError"));
    signal?.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

function bearer(key) {
  return key === null ? {} : { authorization: `Bearer ${key}` };
}

function errorOf(status, text, retryAfter) {
  const seconds = Number.parseInt(retryAfter ?? "", 10);
  const rest = { status, retryAfter: Number.isNaN(seconds) ? null : seconds };
  try {
    const { message, code, param } = JSON.parse(text).error;
    return new ApiError({ message, code, param, ...rest });
  } catch {
    return new ApiError({ message: `HTTP ${status}`, ...rest });
  }
}

function unreachable() {
  return new ApiError({ status: 0, code: "unreachable", message: t("error.unreachable") });
}
