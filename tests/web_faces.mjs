// Runs the page's script under Node for the tests. The request is JSON on stdin, the answer JSON on stdout:
// {"module": its address, "golden": sizes, "pictures": [{width, height, data: base64}], "models": [base64]}.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

const request = JSON.parse(readFileSync(0, "utf8"));
const { ModelError, Prediction, crop, readInfo, sha256, toFace } = await import(`${request.module}/fertools.js`);
const { similarity } = await import(`${request.module}/faces.js`);
const bytes = (text) => new Uint8Array(Buffer.from(text, "base64"));

/** As `picture` of tests/golden_faces.py. */
function picture(width, height, channels) {
  const data = new Uint8Array(width * height * channels);
  let state = width * 1000 + height;
  for (let i = 0; i < data.length; i++) {
    state = (state * 16_807) % 2_147_483_647;
    data[i] = (state >> 12) & 255;
  }
  return { data, width, height };
}

async function tried(work) {
  try {
    return await work();
  } catch (error) {
    return { error: error.name, message: error.message, expected: error instanceof ModelError };
  }
}

const golden = [];
for (const { width, height, channels } of request.golden ?? []) {
  const face = await toFace(picture(width, height, channels));
  const row = Array.from({ length: 10 }, (_, i) => face[24 * 48 + 5 * i]);
  golden.push({ width, height, channels, sha256: createHash("sha256").update(face).digest("hex"), "row 24, every fifth": row });
}
const faces = [];
for (const { width, height, data, frame } of request.pictures ?? []) {
  const pixels = { width, height, data: bytes(data) };
  faces.push(Buffer.from(await toFace(frame ? await crop(pixels, frame) : pixels)).toString("base64"));
}
const prediction = request.scores && new Prediction(request.scores);
process.stdout.write(
  JSON.stringify({
    golden,
    faces,
    digests: (request.digests ?? []).map((text) => sha256(bytes(text))),
    models: await Promise.all((request.models ?? []).map((text) => tried(() => readInfo(bytes(text), "m.onnx")))),
    prediction,
    top: prediction?.top(2),
    similarity: request.similarity && similarity(...request.similarity),
  }),
);
