// Which files of an adapter were picked or dropped: single files, directories, or a tar as the server exports it.

export const REQUIRED = ["adapter_config.json", "adapter_model.safetensors"];
export const OPTIONAL = ["hotprompt.json", "README.md"];

const KNOWN = new Set([...REQUIRED, ...OPTIONAL]);
const BLOCK = 512;
const MAX_ENTRIES = 64;

/** Promise of [path, blob] of everything that was dropped; to be called while the event is handled. */
export function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const loose = [...transfer.files];
  if (entries.length === 0) return Promise.resolve(loose.map((file) => [file.name, file]));
  return Promise.all(entries.map((entry) => filesBelow(entry, 2))).then((found) => found.flat());
}

async function filesBelow(entry, depth) {
  if (entry.isFile) return [[entry.fullPath, await new Promise((resolve, reject) => entry.file(resolve, reject))]];
  if (depth === 0) return [];
  const inside = await new Promise((resolve, reject) => entry.createReader().readEntries(resolve, reject));
  return (await Promise.all(inside.map((one) => filesBelow(one, depth - 1)))).flat();
}

/** The files of an adapter by name, and the names of all others; tars are looked into. */
export async function sorted(found) {
  const files = new Map();
  const others = [];
  for (const [path, blob] of found) {
    const name = path.split("/").at(-1);
    if (name.endsWith(".tar")) for (const [inner, part] of await entriesOf(blob)) take(inner, part);
    else take(name, blob);
  }
  return { files, others };

  function take(name, blob) {
    if (KNOWN.has(name)) files.set(name, blob);
    else others.push(name);
  }
}

/** The regular files of a tar: [name, blob], up to its end or the first header that makes no sense. */
async function entriesOf(blob) {
  const entries = [];
  for (let at = 0; at + BLOCK <= blob.size && entries.length < MAX_ENTRIES; ) {
    const header = new Uint8Array(await blob.slice(at, at + BLOCK).arrayBuffer());
    const size = Number.parseInt(textOf(header, 124, 12), 8);
    if (Number.isNaN(size)) break;
    const start = at + BLOCK;
    const type = String.fromCharCode(header[156]);
    if (type === "0" || type === "\0") entries.push([textOf(header, 0, 100).split("/").at(-1), blob.slice(start, start + size)]);
    at = start + Math.ceil(size / BLOCK) * BLOCK;
  }
  return entries;
}

function textOf(bytes, start, length) {
  const field = bytes.subarray(start, start + length);
  const end = field.indexOf(0);
  return new TextDecoder().decode(end < 0 ? field : field.subarray(0, end)).trim();
}

/** The name that an adapter's own manifest says, or null. */
export async function nameInside(files) {
  try {
    const { name } = JSON.parse(await files.get("hotprompt.json").text());
    return typeof name === "string" ? name : null;
  } catch {
    return null;
  }
}
