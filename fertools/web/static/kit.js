/**
 * A kit of `fertools verify EXPORT --kit kit.zip`, run by onnxruntime-web in the browser or in Node.
 *
 *     import { check, readKit } from "./kit.js";
 *     const result = await check(readKit(bytes), device);
 *
 * The counterpart of the kit's check.py: the same document, which `fertools verify EXPORT --device` reads.
 */
import { FertoolsError, SIZE, load, readInfo, sha256 } from "./fertools.js";

/** The kit cannot be used; the message says why and what to do. */
export class KitError extends FertoolsError {
  name = "KitError";
}

/** Version of the kit and of the result, as in check.py. */
const SCHEMA = 1;
const WARM_UP = 10;

/**
 * A kit whose parts have been checked.
 * @typedef {object} Kit
 * @property {object} facts the document kit.json
 * @property {string} digest SHA-256 of kit.json
 * @property {Uint8Array[]} images 48x48 grey pixels each
 * @property {{name: string, sha256: string, bytes: Uint8Array, expected: Float32Array}[]} files the .onnx files, and
 *   the probabilities that each gave where the kit was made, one row per image
 * @property {string[]} left files of other formats, which onnxruntime-web does not run
 */

/**
 * What a device answered: the document of result.json.
 * @typedef {object} Result
 * @property {string} model
 * @property {{count: number}} images
 * @property {number} limit the share of images on which the class must be the same
 * @property {{processor: string, machine: string, system: string, onnxruntime: string}} device
 * @property {string} provider
 * @property {number} threads
 * @property {{file: string, sha256: string, agreement: number, largest_difference: number, milliseconds: number,
 *   answers: string}[]} files milliseconds are the median; answers are float32, little-endian, in base64
 */

/**
 * Read a kit and check that nothing in it was altered.
 * @param {Uint8Array} bytes kit.zip
 * @returns {Kit}
 * @throws {KitError}
 */
export function readKit(bytes) {
  const parts = unzip(bytes);
  if (!parts.has("kit.json")) throw new KitError("not a kit: it has no kit.json; fertools verify EXPORT --kit writes one");
  const part = (name) => {
    const found = parts.get(name);
    if (!found) throw new KitError(`${name}: missing from the kit; make the kit again`);
    return found;
  };
  const facts = parse(part("kit.json"));
  if (facts?.schema !== SCHEMA) {
    throw new KitError(`the kit has schema ${facts?.schema} and this script reads ${SCHEMA}: write both by the same fertools`);
  }
  if (!Array.isArray(facts.files) || !facts.images) throw new KitError("kit.json: incomplete; make the kit again");
  if (facts.images.size !== SIZE) throw new KitError(`images.u8: not of ${SIZE} x ${SIZE} pixels`);
  const pixels = part("images.u8");
  const count = pixels.length / SIZE ** 2;
  if (sha256(pixels) !== facts.images.sha256 || count !== facts.images.count || count < 1) {
    throw new KitError("images.u8: altered or cut short; copy the kit again");
  }
  const images = Array.from({ length: count }, (_, index) => pixels.slice(index * SIZE ** 2, (index + 1) * SIZE ** 2));
  const runs = (fact) => fact.file.endsWith(".onnx");
  const files = facts.files.filter(runs).map((fact) => {
    const model = part(fact.file);
    if (sha256(model) !== fact.sha256) throw new KitError(altered(fact.file, model));
    const expected = part(fact.expected);
    if (expected.length !== 4 * count * facts.labels.length) throw new KitError(`${fact.expected}: cut short; copy the kit again`);
    return { name: fact.file, sha256: fact.sha256, bytes: model, expected: floats(expected) };
  });
  if (!files.length) throw new KitError("the kit has no .onnx file, and onnxruntime-web runs no other");
  const left = facts.files.filter((fact) => !runs(fact)).map((fact) => fact.file);
  return { facts, digest: sha256(part("kit.json")), images, files, left };
}

/**
 * Run every image of a kit through every file, one at a time on one thread.
 * @param {Kit} kit
 * @param {{processor: string, system: string}} device what it is called in the report, and what it says of itself
 * @param {(done: number, total: number) => unknown} [progress] awaited after each image, outside of the timing
 * @returns {Promise<Result>}
 * @throws {FertoolsError} onnxruntime-web cannot open a file
 */
export async function check(kit, device, progress = () => {}) {
  const rows = [];
  let backend;
  for (const [index, file] of kit.files.entries()) {
    const predictor = await load(file.bytes);
    backend = predictor.backend;
    for (let run = 0; run < WARM_UP; run++) await predictor.probabilities(kit.images[0]);
    const classes = predictor.labels.length;
    const answers = new Float32Array(kit.images.length * classes);
    const times = [];
    for (const [number, image] of kit.images.entries()) {
      const start = performance.now();
      const answer = await predictor.probabilities(image);
      times.push(performance.now() - start);
      answers.set(answer, number * classes);
      await progress(index * kit.images.length + number + 1, kit.files.length * kit.images.length);
    }
    rows.push({
      file: file.name,
      sha256: file.sha256,
      ...compare(answers, file.expected, classes),
      milliseconds: Math.round(1e4 * median(times)) / 1e4,
      answers: base64(answers),
    });
  }
  const { facts, digest } = kit;
  return {
    schema: SCHEMA,
    kit: digest,
    model: facts.model,
    images: facts.images,
    limit: facts.limit,
    device: { processor: device.processor, machine: "wasm", system: device.system, onnxruntime: backend.version },
    provider: backend.provider,
    threads: backend.threads,
    files: rows,
  };
}

/**
 * Whether every file of a result gives the same classes, as far as this device tells.
 * @param {Result} result
 */
export function passed(result) {
  return result.files.every((row) => row.agreement >= result.limit);
}

/** Share of rows with the same first maximum, and the largest difference; what is no number is wrong by 1. */
function compare(answers, expected, classes) {
  let same = 0;
  let largest = 0;
  for (let at = 0; at < answers.length; at += classes) {
    const [row, wanted] = [answers.subarray(at, at + classes), expected.subarray(at, at + classes)];
    if (row.every(Number.isFinite) && best(row) === best(wanted)) same += 1;
    row.forEach((value, index) => {
      const difference = Math.abs(value - wanted[index]);
      largest = Math.max(largest, Number.isFinite(difference) ? difference : 1);
    });
  }
  return { agreement: (same * classes) / answers.length, largest_difference: largest };
}

const best = (row) => row.indexOf(Math.max(...row));

function median(values) {
  const sorted = [...values].sort((one, other) => one - other);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Little-endian, whatever the processor. */
function floats(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Float32Array.from({ length: bytes.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
}

function base64(values) {
  const view = new DataView(new ArrayBuffer(4 * values.length));
  values.forEach((value, index) => view.setFloat32(4 * index, value, true));
  return btoa(Array.from(new Uint8Array(view.buffer), (byte) => String.fromCharCode(byte)).join(""));
}

/** A whole file of ours that is not the kit's is another version; any other was damaged. */
function altered(name, bytes) {
  try {
    const { name: model, weights_sha256: weights } = readInfo(bytes);
    return `${name}: another version (${model}, weights ${weights.slice(0, 12)}) than the kit's; make the kit again`;
  } catch {
    return `${name}: altered or cut short; copy the kit again`;
  }
}

function parse(bytes) {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new KitError("kit.json: damaged; copy the kit again");
  }
}

// --- The zip: APPNOTE.TXT 4.3, entries stored ---------------------------------------------------------------

/**
 * Name -> content, by the directory at the end of the archive.
 * @param {Uint8Array} bytes
 * @returns {Map<string, Uint8Array>}
 * @throws {KitError}
 */
function unzip(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const entries = new Map();
  try {
    let end = bytes.length - 22;
    while (view.getUint32(end, true) !== 0x06054b50) end -= 1; // up to a RangeError before the first byte
    const count = view.getUint16(end + 10, true);
    let at = view.getUint32(end + 16, true);
    for (let entry = 0; entry < count; entry++) {
      if (view.getUint32(at, true) !== 0x02014b50) throw new RangeError("no entry");
      const [method, crc, size] = [view.getUint16(at + 10, true), view.getUint32(at + 16, true), view.getUint32(at + 20, true)];
      const [letters, extra, comment] = [28, 30, 32].map((offset) => view.getUint16(at + offset, true));
      const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + letters));
      if (method !== 0) throw new KitError(`${name}: compressed; a kit's files are stored, so give the kit as it was written`);
      const local = view.getUint32(at + 42, true);
      const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
      const content = bytes.slice(start, start + size);
      if (content.length !== size || crc32(content) !== crc) throw new KitError(`${name}: altered or cut short; copy the kit again`);
      entries.set(name, content);
      at += 46 + letters + extra + comment;
    }
  } catch (error) {
    if (error instanceof KitError) throw error;
    throw new KitError("not a kit, or its end is missing: fertools verify EXPORT --kit writes one");
  }
  return entries;
}

const TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte;
});

function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}
