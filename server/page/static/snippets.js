// Writes a chat request as curl, Python and JavaScript. Makes text of data, and knows no DOM.

const EXTRA = ["top_k", "min_p", "repetition_penalty"]; // what openai's Python client does not know by name

/** The request as a shell command; `base` is the server's address, ending with a slash. */
export function asCurl(base, body, hasKey) {
  const json = JSON.stringify({ ...body, stream: true }, null, 2);
  return [
    `curl -N ${quoted(`${base}v1/chat/completions`)} \\`,
    "  -H 'content-type: application/json' \\",
    ...(hasKey ? ['  -H "authorization: Bearer $HOTPROMPT_API_KEY" \\'] : []),
    `  -d ${quoted(json)}`,
  ].join("\n");
}

/** The request with the package `openai` for Python. */
export function asPython(base, body, hasKey) {
  const extra = Object.fromEntries(Object.entries(body).filter(([name]) => EXTRA.includes(name)));
  const named = Object.entries(body).filter(([name]) => !EXTRA.includes(name));
  const key = hasKey ? 'os.environ["HOTPROMPT_API_KEY"]' : '"none"';
  return [
    ...(hasKey ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${python(`${base}v1`)}, api_key=${key})`,
    "stream = client.chat.completions.create(",
    ...named.map(([name, value]) => `    ${name}=${python(value, "    ")},`),
    ...(Object.keys(extra).length > 0 ? [`    extra_body=${python(extra, "    ")},`] : []),
    "    stream=True,",
    ")",
    "for chunk in stream:",
    '    print(chunk.choices[0].delta.content or "", end="", flush=True)',
  ].join("\n");
}

/** The request with the package `openai` for JavaScript. */
export function asJavaScript(base, body, hasKey) {
  const json = JSON.stringify({ ...body, stream: true }, null, 2);
  const key = hasKey ? "process.env.HOTPROMPT_API_KEY" : '"none"';
  return [
    'import OpenAI from "openai";',
    "",
    `const client = new OpenAI({ baseURL: ${JSON.stringify(`${base}v1`)}, apiKey: ${key} });`,
    `const stream = await client.chat.completions.create(${json});`,
    "for await (const chunk of stream) {",
    '  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");',
    "}",
  ].join("\n");
}

function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function python(value, indent = "") {
  const inner = `${indent}    `;
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (Array.isArray(value)) return `[\n${value.map((item) => `${inner}${python(item, inner)},\n`).join("")}${indent}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value)
      .map(([name, item]) => `${JSON.stringify(name)}: ${python(item, inner)}`)
      .join(", ")}}`;
  }
  return JSON.stringify(value); // a string's escapes are Python's too
}
