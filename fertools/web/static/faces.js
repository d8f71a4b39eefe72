/**
 * Faces in a picture by YuNet, cut out and turned as the training images are framed.
 *
 *     import { loadFinder } from "./faces.js";
 *     const finder = await loadFinder("detector.onnx", page.detector);
 *     const [face] = await finder.find(canvas);
 *     await predictor.predict(await face.crop())
 */
import { ModelError, drawing, extent, openSession, read, readPixels } from "./fertools.js";

/** The sizes of YuNet's cells in pixels; each has outputs of its own. */
const STRIDES = [8, 16, 32];

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
 * @property {[number, number][]} landmarks right eye, left eye, nose, right and left corner of the mouth
 * @property {{x: number, y: number, size: number, angle: number}} frame the square that is looked at: its centre,
 *   its side, and its turn in radians, clockwise
 * @property {() => Promise<import("./fertools.js").Pixels>} crop the square's pixels, upright
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
  const { a, b, x, y } = similarity(original, template);
  // From the frame back into the picture.
  const norm = a * a + b * b;
  const back = (u, v) => [(a * (u - x) + b * (v - y)) / norm, (a * (v - y) - b * (u - x)) / norm];
  const [centerX, centerY] = back(24, 24);
  const size = 48 / Math.sqrt(norm);
  return {
    box: { x: box.x / scale, y: box.y / scale, width: box.width / scale, height: box.height / scale },
    confidence,
    landmarks: original,
    frame: { x: centerX, y: centerY, size, angle: Math.atan2(-b, a) },
    crop: () => turned(picture, back, size),
  };
}

/**
 * The similarity transform that brings `points` nearest to `targets` by least squares:
 * (u, v) = (a x - b y + x0, b x + a y + y0).
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

/** The turned square of `size` pixels, at the picture's own resolution, between whose pixels is interpolated. */
async function turned(picture, back, size) {
  const side = Math.max(Math.round(size), 48);
  const corners = [back(0, 0), back(48, 0), back(0, 48), back(48, 48)];
  const [x, y] = [0, 1].map((axis) => Math.floor(Math.min(...corners.map((corner) => corner[axis]))) - 1);
  const [right, bottom] = [0, 1].map((axis) => Math.ceil(Math.max(...corners.map((corner) => corner[axis]))) + 1);
  const area = await readPixels(picture, { x, y, width: right - x, height: bottom - y });
  const channels = area.data.length / (area.width * area.height);
  const data = new Uint8ClampedArray(side * side * channels);
  const inside = (value, length) => Math.min(Math.max(value, 0), length - 1);
  for (let row = 0, at = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      const [sourceX, sourceY] = back(((column + 0.5) * 48) / side, ((row + 0.5) * 48) / side);
      const fromX = inside(sourceX - 0.5 - area.x, area.width);
      const fromY = inside(sourceY - 0.5 - area.y, area.height);
      const [left, top] = [Math.floor(fromX), Math.floor(fromY)];
      const [shareX, shareY] = [fromX - left, fromY - top];
      const stepX = left + 1 < area.width ? channels : 0;
      const stepY = top + 1 < area.height ? area.width * channels : 0;
      for (let channel = 0; channel < channels; channel++) {
        const first = (top * area.width + left) * channels + channel;
        const upper = area.data[first] * (1 - shareX) + area.data[first + stepX] * shareX;
        const lower = area.data[first + stepY] * (1 - shareX) + area.data[first + stepY + stepX] * shareX;
        data[at++] = upper * (1 - shareY) + lower * shareY; // rounded by the array
      }
    }
  }
  return { data, width: side, height: side };
}
