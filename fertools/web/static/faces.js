/**
 * Faces in a picture by YuNet, cut out and turned as the training images are framed.
 *
 *     import { loadFinder } from "./faces.js";
 *     const finder = await loadFinder("detector.onnx", page.detector);
 *     const [face] = await finder.find(canvas);
 *     await predictor.predict(await face.crop())
 */
import { ModelError, SIZE, drawing, extent, openSession, read, readPixels, toGrey } from "./fertools.js";

/** The sizes of YuNet's cells in pixels; each has outputs of its own. */
const STRIDES = [8, 16, 32];
/** Above this side a frame is first reduced by whole numbers, which bounds the work that a face takes. */
const LARGEST_SIDE = 960;

/**
 * What `page.json` says of the detector; the values come from Python.
 * @typedef {object} Framing
 * @property {number} score the least confidence of a face, 0..1
 * @property {number} overlap faces that overlap more (intersection over union) are one
 * @property {[number, number][]} template where the five landmarks stand in the 48x48 frame, in pixels
 */

/**
 * A face in a picture, in the picture's pixels.
 * @typedef {object} Face
 * @property {{x: number, y: number, width: number, height: number}} box as the detector drew it
 * @property {number} confidence 0..1
 * @property {[number, number][]} landmarks the eye at the picture's left, the one at its right, the nose, the corners
 *   of the mouth at the left and at the right
 * @property {{x: number, y: number, size: number, angle: number}} frame the square that is looked at: its centre,
 *   its side, and its turn in radians, clockwise
 * @property {() => Promise<import("./fertools.js").Pixels>} crop the square's pixels, grey and upright
 */

/**
 * Load YuNet.
 * @param {string | URL | ArrayBuffer | Uint8Array} model
 * @param {Framing} framing
 */
export async function loadFinder(model, framing) {
  const { bytes, name } = await read(model);
  const { ort, session } = await openSession(bytes, name);
  if (!STRIDES.every((stride) => session.outputNames.includes(`kps_${stride}`))) {
    throw new ModelError(`${name}: not a YuNet face detector`);
  }
  return new Finder(ort, session, framing);
}

export class Finder {
  #ort;
  #session;
  #framing;
  #side;
  #turn = Promise.resolve();

  constructor(ort, session, framing) {
    this.#ort = ort;
    this.#session = session;
    this.#framing = framing;
    const side = session.inputMetadata[0].shape[3];
    this.#side = Number.isInteger(side) && side > 0 ? side : 320; // a number that may vary has a name
  }

  /**
   * The faces in a picture, largest first.
   * @param {Exclude<import("./fertools.js").Picture, Blob>} picture
   * @returns {Promise<Face[]>}
   */
  async find(picture) {
    const { width, height } = extent(picture);
    const side = this.#side;
    const scale = side / Math.max(width, height);
    const context = drawing(side, side);
    context.imageSmoothingQuality = "high";
    context.drawImage(await drawable(picture), 0, 0, width * scale, height * scale);
    const { data } = context.getImageData(0, 0, side, side);
    const input = new Float32Array(3 * side * side); // planes of blue, green and red, 0..255
    for (let i = 0; i < side * side; i++) {
      for (let plane = 0; plane < 3; plane++) input[plane * side * side + i] = data[4 * i + 2 - plane];
    }
    const tensor = new this.#ort.Tensor("float32", input, [1, 3, side, side]);
    const run = this.#turn.then(() => this.#session.run({ [this.#session.inputNames[0]]: tensor }));
    this.#turn = run.catch(() => {});
    const outputs = await run;
    return suppress(decodeFaces(outputs, side, this.#framing.score), this.#framing.overlap)
      .map((found) => toFace(found, scale, picture, this.#framing.template))
      .sort((one, other) => other.box.width * other.box.height - one.box.width * one.box.height);
  }
}

/** Pixels in memory as something that a canvas draws. */
async function drawable(picture) {
  if (!(picture.data instanceof Uint8Array || picture.data instanceof Uint8ClampedArray)) return picture;
  const { data, width, height } = picture;
  const channels = data.length / (width * height);
  const rgba = new Uint8ClampedArray(width * height * 4).fill(255);
  for (let i = 0; i < width * height; i++) {
    for (let channel = 0; channel < 3; channel++) rgba[4 * i + channel] = data[i * channels + (channels < 3 ? 0 : channel)];
  }
  return createImageBitmap(new ImageData(rgba, width, height));
}

/**
 * YuNet's outputs as boxes and landmarks in the pixels of its input (OpenCV's face_detect.cpp, postProcess).
 * @param {Record<string, {data: Float32Array}>} outputs
 * @param {number} side of the input
 * @param {number} least confidence
 */
export function decodeFaces(outputs, side, least) {
  const faces = [];
  for (const stride of STRIDES) {
    const [cls, obj, bbox, kps] = ["cls", "obj", "bbox", "kps"].map((name) => outputs[`${name}_${stride}`].data);
    const cells = side / stride;
    for (let cell = 0; cell < cells * cells; cell++) {
      const confidence = Math.sqrt(clip(cls[cell]) * clip(obj[cell]));
      if (confidence < least) continue;
      const [column, row] = [cell % cells, Math.floor(cell / cells)];
      const [width, height] = [2, 3].map((i) => Math.exp(bbox[4 * cell + i]) * stride);
      const x = (column + bbox[4 * cell]) * stride - width / 2;
      const y = (row + bbox[4 * cell + 1]) * stride - height / 2;
      const landmarks = [0, 1, 2, 3, 4].map((i) => [
        (column + kps[10 * cell + 2 * i]) * stride,
        (row + kps[10 * cell + 2 * i + 1]) * stride,
      ]);
      faces.push({ box: { x, y, width, height }, confidence, landmarks });
    }
  }
  return faces;
}

const clip = (value) => Math.min(Math.max(value, 0), 1);

/** Of faces that overlap, the surest. */
function suppress(faces, most) {
  const kept = [];
  for (const face of faces.sort((one, other) => other.confidence - one.confidence)) {
    if (kept.every((other) => overlap(face.box, other.box) <= most)) kept.push(face);
  }
  return kept;
}

function overlap(one, other) {
  const width = Math.min(one.x + one.width, other.x + other.width) - Math.max(one.x, other.x);
  const height = Math.min(one.y + one.height, other.y + other.height) - Math.max(one.y, other.y);
  const common = Math.max(width, 0) * Math.max(height, 0);
  return common / (one.width * one.height + other.width * other.height - common);
}

/** @returns {Face} */
function toFace({ box, confidence, landmarks }, scale, picture, template) {
  const original = landmarks.map(([x, y]) => [x / scale, y / scale]);
  const fit = similarity(template, original);
  const [x, y] = apply(fit, SIZE / 2, SIZE / 2);
  const frame = { x, y, size: SIZE * Math.hypot(fit.a, fit.b), angle: Math.atan2(fit.b, fit.a) };
  return {
    box: { x: box.x / scale, y: box.y / scale, width: box.width / scale, height: box.height / scale },
    confidence,
    landmarks: original,
    frame,
    crop: () => upright(picture, fit, frame.size),
  };
}

/**
 * The similarity transform that brings `points` nearest to `targets` by least squares (Umeyama 1991,
 * doi:10.1109/34.88573, for the plane): (x, y) -> (a x - b y + x0, b x + a y + y0).
 * @param {[number, number][]} points
 * @param {[number, number][]} targets
 */
export function similarity(points, targets) {
  const mean = (list, axis) => list.reduce((sum, item) => sum + item[axis], 0) / list.length;
  const [px, py, tx, ty] = [mean(points, 0), mean(points, 1), mean(targets, 0), mean(targets, 1)];
  let [dot, cross, norm] = [0, 0, 0];
  points.forEach(([pointX, pointY], i) => {
    const [x, y, u, v] = [pointX - px, pointY - py, targets[i][0] - tx, targets[i][1] - ty];
    dot += x * u + y * v;
    cross += x * v - y * u;
    norm += x * x + y * y;
  });
  const [a, b] = [dot / norm, cross / norm];
  return { a, b, x: tx - a * px + b * py, y: ty - b * px - a * py };
}

const apply = ({ a, b, x, y }, u, v) => [a * u - b * v + x, b * u + a * v + y];

/**
 * The frame's pixels in grey, cut out upright at the picture's own resolution (`fertools/faces/framing.py`).
 * @param {Exclude<import("./fertools.js").Picture, Blob>} picture
 * @param {{a: number, b: number, x: number, y: number}} fit from the 48x48 frame to the picture
 * @param {number} length of a side in the picture
 * @returns {Promise<import("./fertools.js").Pixels>}
 */
async function upright(picture, fit, length) {
  const factor = Math.max(Math.floor(length / LARGEST_SIDE), 1);
  const size = Math.max(Math.round(length / factor), 1);
  const corners = [apply(fit, 0, 0), apply(fit, SIZE, 0), apply(fit, 0, SIZE), apply(fit, SIZE, SIZE)];
  // With two pixels more at each side, for the interpolation.
  const [x, y] = [0, 1].map((axis) => Math.floor(Math.min(...corners.map((at) => at[axis])) / factor - 2) * factor);
  const [right, bottom] = [0, 1].map((axis) => Math.ceil(Math.max(...corners.map((at) => at[axis]))) + 2 * factor);
  const area = await readPixels(picture, { x, y, width: right - x, height: bottom - y });
  const grey = reduce({ data: toGrey(area), width: area.width, height: area.height }, factor);
  const data = new Uint8ClampedArray(size * size);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      const [u, v] = [((column + 0.5) * SIZE) / size, ((row + 0.5) * SIZE) / size];
      const [atX, atY] = apply(fit, u, v);
      data[row * size + column] = between(grey, (atX - area.x) / factor - 0.5, (atY - area.y) / factor - 0.5);
    }
  }
  return { data, width: size, height: size };
}

/** The mean of `factor` pixels each way. */
function reduce({ data, width, height }, factor) {
  if (factor === 1) return { data, width, height };
  const [columns, rows] = [Math.ceil(width / factor), Math.ceil(height / factor)];
  const means = new Uint8ClampedArray(columns * rows);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      let [sum, count] = [0, 0];
      for (let y = row * factor; y < Math.min((row + 1) * factor, height); y++) {
        for (let x = column * factor; x < Math.min((column + 1) * factor, width); x++, count++) sum += data[y * width + x];
      }
      means[row * columns + column] = sum / count;
    }
  }
  return { data: means, width: columns, height: rows };
}

/** Cubic interpolation between the 16 pixels around (x, y), those at the edge repeated, as OpenCV's (a = -0.75). */
function between({ data, width, height }, x, y) {
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const [across, down] = [cubic(x - left), cubic(y - top)];
  let sum = 0;
  for (let row = 0; row < 4; row++) {
    const line = inside(top - 1 + row, height) * width;
    let part = 0;
    for (let column = 0; column < 4; column++) part += across[column] * data[line + inside(left - 1 + column, width)];
    sum += down[row] * part;
  }
  return sum;
}

const inside = (value, length) => Math.min(Math.max(value, 0), length - 1);

/** Weights of the pixels at -1, 0, 1 and 2 for a place at `t`, 0..1 (Keys 1981, doi:10.1109/TASSP.1981.1163711). */
function cubic(t) {
  const near = (d) => (1.25 * d - 2.25) * d * d + 1;
  const far = (d) => ((-0.75 * d + 3.75) * d - 6) * d + 3;
  return [far(1 + t), near(t), near(1 - t), far(2 - t)];
}
