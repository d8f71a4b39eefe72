/**
 * Facial expressions in the browser (or Node): a model file of fertools, run by onnxruntime-web.
 *
 *     import { load } from "./fertools.js";
 *     const predictor = await load("model.int8.onnx");
 *     const prediction = await predictor.predict(canvas);
 *     prediction.label, prediction.confidence, prediction.top(3)
 *
 * The counterpart of Python's `fertools.runtime`: the same checks of the file, the same preprocessing bit for
 * bit, the same fields of a prediction. onnxruntime-web's three files are expected beside this one.
 */

/** The file or image cannot be used; the message says why and what to do. */
export class FertoolsError extends Error {
  name = "FertoolsError";
}
/** A model file is missing, not one of ours, truncated or altered. */
export class ModelError extends FertoolsError {
  name = "ModelError";
}
/** An image cannot be used as a face. */
export class ImageError extends FertoolsError {
  name = "ImageError";
}

/**
 * What a model file says about itself (Python's `ModelInfo`).
 * @typedef {object} ModelInfo
 * @property {string} name the architecture, e.g. "compact"
 * @property {"float32" | "int8"} precision
 * @property {string[]} labels class names in the order of the outputs
 * @property {number} parameters parameters of the trained network
 * @property {{split?: string, images?: number, value?: number}} accuracy measured accuracy, a share; may be empty
 * @property {{name: string, fingerprint: string}} data the training data
 * @property {Record<string, string>} versions package -> version that made the file
 * @property {string} weights_sha256
 */

/**
 * Pixels in memory: grey (1), RGB (3) or RGBA (4 channels, of which the last is ignored), row by row, 0..255.
 * An `ImageData` is one as well.
 * @typedef {{data: Uint8Array | Uint8ClampedArray, width: number, height: number}} Pixels
 */

/**
 * Whatever a picture can be: something that a canvas can draw, an image file, or pixels in memory.
 * @typedef {CanvasImageSource | Blob | Pixels} Picture
 */

/** Height and width of a face image, in pixels. */
export const SIZE = 48;
/** Version of the metadata that this script reads, and where it stands in the file. */
const SCHEMA_VERSION = 1;
const METADATA_KEY = "fertools";
const SEAL_KEY = "fertools.seal";
/** The input that the script prepares, as every file of fertools states it. */
const INPUT = { color: "grey", dtype: "uint8", layout: "NHWC", name: "image", range: [0, 255] };

/** What a model says about one face. */
export class Prediction {
  /**
   * (label, probability) in the order of the model's outputs; probabilities in 0..1 that sum to 1.
   * @type {ReadonlyArray<readonly [string, number]>}
   */
  scores;

  /** @param {ReadonlyArray<readonly [string, number]>} scores */
  constructor(scores) {
    this.scores = Object.freeze(scores.map((score) => Object.freeze(score)));
    Object.freeze(this);
  }

  /** The most probable label; of equal ones the first in the model's order. */
  get label() {
    return this.top(1)[0][0];
  }

  /** The probability of `label`, 0..1. */
  get confidence() {
    return this.top(1)[0][1];
  }

  /** Label -> probability, in the model's order. */
  get probabilities() {
    return Object.fromEntries(this.scores);
  }

  /**
   * The `k` most probable (label, probability), best first; all of them if there are fewer.
   * @param {number} k at least 1
   */
  top(k) {
    if (!(k >= 1)) throw new FertoolsError(`top(${k}): at least one label must be asked for`);
    return [...this.scores].sort((one, other) => other[1] - one[1]).slice(0, k);
  }

  /** What `JSON.stringify` writes: the document that `fertools predict --json` prints for a face. */
  toJSON() {
    return { label: this.label, confidence: this.confidence, probabilities: this.probabilities };
  }
}

/** A loaded model; made by `load`. */
export class Predictor {
  /** @type {ModelInfo} */
  info;
  /** What it really runs on: {provider: "wasm", threads: 1, version: "1.30.0"}. */
  backend;
  #ort;
  #session;
  #turn = Promise.resolve();

  /**
   * @param {object} ort onnxruntime-web
   * @param {object} session its session
   * @param {ModelInfo} info
   */
  constructor(ort, session, info) {
    this.#ort = ort;
    this.#session = session;
    this.info = info;
    this.backend = backendOf(ort);
  }

  /** Class names in the order of the outputs. */
  get labels() {
    return this.info.labels;
  }

  /**
   * The expression of one face. The whole picture is looked at: see `crop` for a part of it.
   * @param {Picture} picture
   * @returns {Promise<Prediction>}
   */
  async predict(picture) {
    const row = await this.probabilities(await toFace(picture));
    return new Prediction(this.labels.map((label, index) => [label, row[index]]));
  }

  /**
   * Run the network once on prepared faces.
   * @param {Uint8Array} faces n images of 48x48 grey pixels one after another, n at least 1 (see `toFace`)
   * @returns {Promise<Float32Array>} n rows of one probability a label
   */
  async probabilities(faces) {
    const count = faces.length / SIZE ** 2;
    if (!(faces instanceof Uint8Array) || count < 1 || !Number.isInteger(count)) {
      throw new ImageError(`faces must be a Uint8Array of n times ${SIZE}x${SIZE} pixels`);
    }
    const input = new this.#ort.Tensor("uint8", faces, [count, SIZE, SIZE, 1]);
    // A session takes one run at a time.
    const run = this.#turn.then(() => this.#session.run({ [this.#session.inputNames[0]]: input }));
    this.#turn = run.catch(() => {});
    return (await run)[this.#session.outputNames[0]].data;
  }
}

/**
 * Load a model file that fertools exported.
 * @param {string | URL | ArrayBuffer | Uint8Array} model its address, or its bytes
 * @returns {Promise<Predictor>}
 * @throws {ModelError} the file is missing, not ours, truncated or altered
 */
export async function load(model) {
  const { bytes, name } = await read(model);
  const info = readInfo(bytes, name);
  const { ort, session } = await openSession(bytes, name);
  return new Predictor(ort, session, info);
}

/**
 * The bytes of a model, and its name for messages.
 * @param {string | URL | ArrayBuffer | Uint8Array} model
 */
export async function read(model) {
  if (model instanceof ArrayBuffer) return { bytes: new Uint8Array(model), name: "the model" };
  if (model instanceof Uint8Array) return { bytes: model, name: "the model" };
  const name = String(model).split(/[?#]/)[0].split("/").pop() || String(model);
  let answer;
  try {
    answer = await fetch(model);
  } catch (error) {
    throw new ModelError(`${name}: cannot be fetched: ${error.message}`);
  }
  if (!answer.ok) throw new ModelError(`${name}: the server answers ${answer.status} ${answer.statusText}`.trim());
  return { bytes: new Uint8Array(await answer.arrayBuffer()), name };
}

/**
 * A session of onnxruntime-web on one thread, which needs no headers of the server.
 * @param {Uint8Array} bytes
 * @param {string} name
 */
export async function openSession(bytes, name) {
  const ort = await import("./ort.wasm.min.mjs");
  ort.env.wasm.numThreads = 1;
  try {
    return { ort, session: await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] }) };
  } catch (error) {
    throw new ModelError(`${name}: onnxruntime-web cannot open it: ${error.message}`);
  }
}

function backendOf(ort) {
  return { provider: "wasm", threads: ort.env.wasm.numThreads, version: ort.env.versions.web };
}

// --- The model file -------------------------------------------------------------------------------------

/**
 * Check the seal of a model file and read what it says about itself.
 * @param {Uint8Array} bytes
 * @param {string} [name] the file, for messages
 * @returns {ModelInfo}
 * @throws {ModelError}
 */
export function readInfo(bytes, name = "the model") {
  if (!bytes.length) throw new ModelError(`${name}: the file is empty: copy or export it again`);
  const entries = readMetadata(bytes);
  const seal = entries?.get(SEAL_KEY);
  const text = entries?.get(METADATA_KEY);
  if (!seal || !text) {
    // The entries are the last bytes of a file, so one cut short has lost them, too.
    throw new ModelError(`${name}: not a model exported by fertools, or its end is missing: export it again`);
  }
  const blanked = bytes.slice();
  blanked.fill(0x30, seal.start, seal.end);
  const decode = (entry) => new TextDecoder().decode(bytes.subarray(entry.start, entry.end));
  if (decode(seal) !== sha256(blanked)) {
    throw new ModelError(`${name}: truncated or altered since its export: copy or export it again`);
  }
  const { schema, input, ...info } = JSON.parse(decode(text));
  if (schema !== SCHEMA_VERSION) {
    throw new ModelError(`${name}: its metadata has schema ${schema} and this page reads ${SCHEMA_VERSION}: write both anew`);
  }
  const known = Object.entries(INPUT).every(([key, value]) => String(input?.[key]) === String(value));
  if (!known || String(input.shape.slice(1)) !== String([SIZE, SIZE, 1])) {
    throw new ModelError(`${name}: takes another input than ${SIZE}x${SIZE} grey pixels: export it again`);
  }
  return info;
}

/**
 * Key -> place of its value, of a ModelProto's `metadata_props`: field 14, entries of key (1) and value (2)
 * (onnx.proto). The fields of a protobuf are gone through without looking into any other.
 * @param {Uint8Array} bytes
 * @returns {Map<string, {start: number, end: number}> | null} null for what is no protobuf
 */
function readMetadata(bytes) {
  const entries = new Map();
  const whole = fields(bytes, 0, bytes.length, (number, start, end) => {
    if (number !== 14) return;
    let key = "";
    let value = null;
    fields(bytes, start, end, (part, from, to) => {
      if (part === 1) key = new TextDecoder().decode(bytes.subarray(from, to));
      if (part === 2) value = { start: from, end: to };
    });
    if (value) entries.set(key, value);
  });
  return whole ? entries : null;
}

/** Tell `visit` (number, start, end) of each length-delimited field; false where the bytes end too early. */
function fields(bytes, position, end, visit) {
  const varint = () => {
    let value = 0;
    for (let scale = 1; position < end; scale *= 128) {
      const byte = bytes[position++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    return NaN;
  };
  while (position < end) {
    const tag = varint();
    const kind = tag % 8;
    if (kind === 0) varint();
    else if (kind === 1) position += 8;
    else if (kind === 5) position += 4;
    else if (kind === 2) {
      const length = varint();
      if (!(position + length <= end)) return false;
      visit(Math.floor(tag / 8), position, position + length);
      position += length;
    } else return false;
  }
  return position === end;
}

/**
 * SHA-256 (FIPS 180-4) as hexadecimal digits. The browser's own is there on https and localhost alone, and a
 * phone that tries a page out in the local network has neither.
 * @param {Uint8Array} bytes
 */
export function sha256(bytes) {
  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((prime) => n % prime)) primes.push(n);
  const fraction = (root) => Math.floor((root % 1) * 2 ** 32) | 0;
  const constants = Int32Array.from(primes, (prime) => fraction(Math.cbrt(prime)));
  const state = Int32Array.from(primes.slice(0, 8), (prime) => fraction(Math.sqrt(prime)));
  const padded = new Uint8Array(Math.ceil((bytes.length + 9) / 64) * 64);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(bytes.length / 2 ** 29));
  view.setUint32(padded.length - 4, (bytes.length * 8) >>> 0);
  const words = new Int32Array(64);
  for (let block = 0; block < padded.length; block += 64) {
    for (let i = 0; i < 16; i++) words[i] = view.getInt32(block + 4 * i);
    for (let i = 16; i < 64; i++) {
      const [early, late] = [words[i - 15], words[i - 2]];
      const low = turn(early, 7) ^ turn(early, 18) ^ (early >>> 3);
      const high = turn(late, 17) ^ turn(late, 19) ^ (late >>> 10);
      words[i] = words[i - 16] + low + words[i - 7] + high;
    }
    mix(state, words, constants);
  }
  return Array.from(state, (word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
}

const turn = (word, by) => (word >>> by) | (word << (32 - by));

/** One block of SHA-256. */
function mix(state, words, constants) {
  let [a, b, c, d, e, f, g, h] = state;
  for (let i = 0; i < 64; i++) {
    const one = ((turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + h + constants[i] + words[i]) | 0;
    const two = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = (d + one) | 0;
    d = c;
    c = b;
    b = a;
    a = (one + two) | 0;
  }
  [a, b, c, d, e, f, g, h].forEach((word, i) => (state[i] += word));
}

// --- Preprocessing: `fertools/runtime/preprocessing.py`, bit for bit --------------------------------------

/**
 * Turn a picture of one face into the network's input.
 *
 * The whole picture is scaled to 48x48 by an antialiased triangle filter; colours become grey by ITU-R 601
 * luma. A grey 48x48 picture is unchanged. Of files, the EXIF orientation is applied and transparency is
 * laid over black.
 * @param {Picture} picture
 * @returns {Promise<Uint8Array>} 48x48 grey pixels, 0..255, row by row
 * @throws {ImageError}
 */
export async function toFace(picture) {
  return resample(await readPixels(picture));
}

/**
 * @param {Pixels} pixels
 * @returns {Uint8Array} 48x48
 */
function resample(pixels) {
  const { width, height } = pixels;
  const grey = toGrey(pixels);
  if (width === SIZE && height === SIZE) return grey;
  // Weights and pixels are integers, and their sums stay below 2**53: exact, in whatever order they are made.
  const tall = new Float64Array(SIZE * width);
  weights(height).forEach(({ start, values }, row) => {
    const line = tall.subarray(row * width, (row + 1) * width);
    values.forEach((weight, step) => {
      const offset = (start + step) * width;
      for (let column = 0; column < width; column++) line[column] += weight * grey[offset + column];
    });
  });
  const face = new Uint8Array(SIZE * SIZE);
  weights(width).forEach(({ start, values }, column) => {
    for (let row = 0; row < SIZE; row++) {
      let sum = 0;
      for (let step = 0; step < values.length; step++) sum += values[step] * tall[row * width + start + step];
      face[row * SIZE + column] = Math.min(Math.floor((sum + 2 ** 43) / 2 ** 44), 255);
    }
  });
  return face;
}

/**
 * Grey pixels by ITU-R 601 luma, in 16-bit fixed point.
 * @param {Pixels} pixels
 * @returns {Uint8Array}
 * @throws {ImageError}
 */
export function toGrey({ data, width, height }) {
  const count = width * height;
  const channels = data.length / count;
  if (channels === 1) return Uint8Array.from(data);
  if (channels !== 3 && channels !== 4) {
    throw new ImageError(`${data.length} bytes are no picture of ${width} x ${height} pixels: 1, 3 or 4 channels`);
  }
  const grey = new Uint8Array(count);
  for (let i = 0, at = 0; i < count; i++, at += channels) {
    grey[i] = (data[at] * 19595 + data[at + 1] * 38470 + data[at + 2] * 7471 + 0x8000) >> 16;
  }
  return grey;
}

const cache = new Map();

/**
 * The triangle filter from `size` pixels to 48, in multiples of 2**-22: where each of the 48 starts, and what
 * is not zero of it. Up to 14,188 pixels no weight is so near to the middle between two integers that the
 * order in which numpy adds the 48 rows could round it otherwise: before rounding, weights are fractions whose
 * denominators stay below 2**23.
 */
function weights(size) {
  if (!cache.has(size)) {
    const scale = size / SIZE;
    const reach = Math.max(scale, 1);
    const rows = Array.from({ length: SIZE }, (_, row) => {
      const center = (row + 0.5) * scale;
      const start = Math.max(Math.floor(center - reach - 0.5), 0);
      const stop = Math.min(Math.ceil(center + reach + 0.5), size);
      const triangle = Array.from({ length: stop - start }, (_, step) =>
        Math.max(1 - Math.abs(start + step + 0.5 - center) / reach, 0),
      );
      const sum = triangle.reduce((total, value) => total + value, 0);
      return { start, values: triangle.map((value) => Math.round((value / sum) * 2 ** 22)) };
    });
    if (cache.size >= 64) cache.delete(cache.keys().next().value);
    cache.set(size, rows);
  }
  return cache.get(size);
}

// --- Pixels of pictures ------------------------------------------------------------------------------------

/**
 * A square out of a picture. What lies beyond its edges repeats the pixels there.
 * @param {Picture} picture
 * @param {{x: number, y: number, size: number}} frame in pixels of the picture; rounded
 * @returns {Promise<Pixels>}
 */
export async function crop(picture, frame) {
  const size = Math.max(Math.round(frame.size), 1);
  const [left, top] = [Math.round(frame.x), Math.round(frame.y)];
  const area = await readPixels(picture, { x: left, y: top, width: size, height: size });
  if (area.width === size && area.height === size) return area;
  const channels = area.data.length / (area.width * area.height);
  const data = new Uint8ClampedArray(size * size * channels);
  for (let row = 0, at = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      const x = clamp(left + column - area.x, area.width);
      const from = (clamp(top + row - area.y, area.height) * area.width + x) * channels;
      for (let channel = 0; channel < channels; channel++) data[at++] = area.data[from + channel];
    }
  }
  return { data, width: size, height: size };
}

const clamp = (value, length) => Math.min(Math.max(value, 0), length - 1);

/**
 * Width and height of a picture in its own pixels.
 * @param {Exclude<Picture, Blob>} picture
 */
export function extent(picture) {
  /** @type {any} each kind has its own names for them */
  const any = picture;
  const width = any.videoWidth ?? any.naturalWidth ?? any.displayWidth ?? any.width;
  const height = any.videoHeight ?? any.naturalHeight ?? any.displayHeight ?? any.height;
  return { width, height };
}

/**
 * Read a picture's pixels, or those of a part of it, as far as the picture reaches.
 * @param {Picture} picture
 * @param {{x: number, y: number, width: number, height: number}} [area] whole numbers
 * @returns {Promise<Pixels & {x: number, y: number}>} with the place of the first pixel in the picture
 * @throws {ImageError}
 */
export async function readPixels(picture, area) {
  /** @type {any} */
  const drawn = picture instanceof Blob ? await decode(picture) : (picture ?? {});
  const { width, height } = extent(drawn);
  if (!(width > 0 && height > 0)) throw new ImageError("not a picture, or one without pixels");
  const wanted = area ?? { x: 0, y: 0, width, height };
  // At least the pixel nearest to the area, for what lies wholly outside.
  const x = clamp(wanted.x, width);
  const y = clamp(wanted.y, height);
  const right = Math.max(Math.min(wanted.x + wanted.width, width), x + 1);
  const bottom = Math.max(Math.min(wanted.y + wanted.height, height), y + 1);
  const place = { x, y, width: right - x, height: bottom - y };
  if (drawn.data instanceof Uint8Array || drawn.data instanceof Uint8ClampedArray) {
    return { ...place, data: cut(drawn, place) };
  }
  const context = drawing(place.width, place.height);
  try {
    context.drawImage(drawn, x, y, place.width, place.height, 0, 0, place.width, place.height);
    return { ...place, data: context.getImageData(0, 0, place.width, place.height).data };
  } catch (error) {
    throw new ImageError(`the picture's pixels cannot be read: ${error.message}`);
  }
}

/**
 * Decode an image file, upright, without colour management, as Pillow does.
 * @param {Blob & {name?: string}} file
 * @returns {Promise<ImageBitmap>}
 * @throws {ImageError}
 */
export async function decode(file) {
  const name = file.name ?? "the file";
  if (!file.size) throw new ImageError(`${name}: the file is empty`);
  try {
    // EXIF turns are applied by default, under whatever name: the value "none", which meant just that, became
    // "from-image" (whatwg/html, issue 8085), and browsers refuse the name that they do not know.
    return await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new ImageError(`${name}: not an image that this browser can read, or a damaged one: try a JPEG or PNG file`);
  }
}

/** The rows of a part of pixels in memory. */
function cut({ data, width, height }, place) {
  const channels = data.length / (width * height);
  if (place.width === width && place.height === height) return data;
  const part = new Uint8ClampedArray(place.width * place.height * channels);
  for (let row = 0; row < place.height; row++) {
    const from = ((place.y + row) * width + place.x) * channels;
    part.set(data.subarray(from, from + place.width * channels), row * place.width * channels);
  }
  return part;
}

/** An opaque black canvas to draw on, so that transparency is laid over black. */
export function drawing(width, height) {
  const canvas =
    typeof OffscreenCanvas === "function"
      ? new OffscreenCanvas(width, height)
      : Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  if (!context) throw new ImageError(`a picture of ${width} x ${height} pixels is too large for this browser`);
  return context;
}
