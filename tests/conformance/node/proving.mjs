// What the programs share: where they ask, and how they say what they proved. Knows no client package.

const [url, model] = process.argv.slice(2);

/** Where to ask: the base URL, with /v1, and the name of a model. */
export const place = { url: `${url}/v1`, model };

/** The chat key of the narrow server; the open one knows no keys. */
export const KEY = "conformance-key";

/** Both the base model and the example adapter have an answer to it. */
export const QUESTION = "Is this film review positive or negative?\nA warm and funny film.";

/** An answer that does not end by itself, so that its request is running until it is hung up. */
export const HOG = { ignore_eos: true, max_tokens: 3000 };

/** Say that a feature was seen to work, once all that belongs to it was asserted. */
export function proved(feature) {
  process.stdout.write(`${feature}\n`);
}
