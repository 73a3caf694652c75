// How an adapter's facts are written: sizes, kinds, verification, what training gained.

import { h } from "./dom.js";
import { formatNumber, say } from "./i18n.js";

const SHORT_DIGEST = 8;
const UNITS = ["B", "kB", "MB", "GB"];
const VERIFICATION_CHIPS = { verified: "good", mismatch: "danger", no_effect: "warn", unverified: "" };

export function sizeOf(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${formatNumber(value, unit > 0 && value < 100 ? 1 : 0)} ${UNITS[unit]}`;
}

export function shortDigest(digest) {
  return digest.slice(0, SHORT_DIGEST);
}

export function kindOf({ kind }) {
  return kind.replaceAll("_", " ");
}

export function chip(text, look = "") {
  return h("span", { class: `chip ${look}` }, text);
}

export function sayingChip(key, look = "", params = {}) {
  return say(chip("", look), key, params);
}

/** A chip with what the probes said; its tooltip is the server's own detail. */
export function verificationChip({ state, detail }) {
  const node = sayingChip(`adapters.verification.${state}`, VERIFICATION_CHIPS[state] ?? "");
  if (detail) node.title = detail;
  return node;
}

/** What training gained on held-out rows, or what its loss came to: [key, params]; null where nothing is known. */
export function gainOf(training) {
  if (!training) return null;
  const { evaluation, final_loss: loss } = training;
  if (evaluation) {
    const score = evaluation.scores?.[0];
    if (score) return ["adapters.gain.score", { name: score.name.replaceAll("_", " "), before: number(score.before), after: number(score.after) }];
    return ["adapters.gain.match", { before: percent(evaluation.exact_match_before), after: percent(evaluation.exact_match_after) }];
  }
  return loss === null ? null : ["adapters.gain.loss", { loss: number(loss) }];
}

export function percent(share) {
  return `${formatNumber(share * 100, 1)} %`;
}

export function number(value) {
  return formatNumber(value, 3);
}
