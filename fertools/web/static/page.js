/** The page: pictures in, probabilities out. What it shows of a face is `fertools.js`'s answer. */
import { FertoolsError, SIZE, crop, decode, extent, load, toFace } from "./fertools.js";
import { loadFinder } from "./faces.js";

const $ = (id) => document.getElementById(id);
/** Photos are shown at most so large; the network is given their own pixels. */
const SHOWN = 1600;
/** Finding faces takes longer than reading them: a camera is searched every so many frames. */
const SEARCH = 3;
/** Seconds between two announcements of a live camera to a screen reader. */
const PATIENCE = 4;
/** The camera that is asked for first: of a phone the one that faces who holds it. */
const USUAL = { facingMode: "user" };

let predictor = null;
let finder = null;
/** The picture on the page: an ImageBitmap or the video; null for none. */
let picture = null;
let stream = null;
/** How often a photo or the camera was asked for: what comes late, after something else was asked for, is dropped. */
let requests = 0;
/** The cameras of this device, once one of them is on. */
let cameras = [];
/** The camera to ask for, in getUserMedia's words. */
let wanted = USUAL;
/** The frame that is drawn by hand, in pixels of the picture. */
let frame = { x: 0, y: 0, size: 1 };
/** The faces that were found, with their predictions. */
let faces = [];
/** The square of the face that the bars are of, where it was last found; null for none yet. */
let chosen = null;

/** Whether the page could be loaded, once that is known. */
const started = start();

async function start() {
  $("unserved").remove();
  listenForFiles(); // a browser leaves the page for a picture that nobody takes
  try {
    const page = await settings();
    const loading = page.detector ? loadFinder(page.detector.file, page.detector) : null;
    [predictor, finder] = await Promise.all([load(page.model), loading]);
    await predictor.probabilities(new Uint8Array(SIZE * SIZE)); // the first run is slower than all others
    describe(page);
  } catch (error) {
    $("backend").textContent = "nothing";
    tell(error);
    return false;
  }
  for (const id of ["choose", "take", "camera"]) $(id).disabled = false;
  $("automatic-label").hidden = $("finding").hidden = !finder;
  listen();
  document.documentElement.dataset.ready = "";
  // On https and localhost alone; elsewhere the page works, but not without its server.
  navigator.serviceWorker?.register("sw.js").catch(() => {});
  return true;
}

async function settings() {
  const answer = await fetch("page.json").catch(() => null);
  if (!answer?.ok) throw new FertoolsError("page.json cannot be fetched: is its server running?");
  return answer.json();
}

// --- What stands on the page -------------------------------------------------------------------------------

function describe(page) {
  const { info, backend } = predictor;
  const { value, images, split } = info.accuracy;
  $("bars").replaceChildren(...info.labels.map(bar));
  const threads = `${backend.threads} thread${backend.threads > 1 ? "s" : ""}`;
  $("backend").textContent = `onnxruntime-web ${backend.version}, ${backend.provider}, ${threads}`;
  $("version").textContent = page.fertools;
  const number = new Intl.NumberFormat("en");
  $("facts").replaceChildren(
    ...[
      ["Measured accuracy", value === undefined ? "not measured" : `${percent(value, 1)} of ${number.format(images)} images`],
      ["Measured on", value === undefined ? "–" : `${split} split of ${info.data.name}`],
      ["Network", `${info.name}, ${info.precision}`],
      ["Parameters", number.format(info.parameters)],
      ["Weights", `${info.weights_sha256.slice(0, 12)}…`],
    ].map(([term, text]) => element("div", {}, element("dt", {}, term), element("dd", {}, text))),
  );
  $("limits").replaceChildren(...page.limits.map((text) => element("li", {}, text)));
  $("data").textContent = page.data;
  $("licences").replaceChildren(
    ...page.licences.map((file) => element("li", {}, element("a", { href: file }, file.split("/").pop()))),
  );
}

function bar(label) {
  const name = `bar-${label}`;
  const meter = { role: "meter", "aria-labelledby": name, "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": "0" };
  return element(
    "li",
    { "data-label": label },
    element("span", { id: name }, label),
    element("div", { class: "track", ...meter }, element("div", { class: "fill" })),
    element("span", { class: "number", "aria-hidden": "true" }, "–"),
  );
}

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const percent = (value, digits = 0) => `${(100 * value).toFixed(digits)}%`;

/** Say what went wrong, until something goes right. */
function tell(error) {
  if (!(error instanceof FertoolsError)) console.error(error);
  $("message").textContent = error.message;
  $("message").hidden = false;
}

/** Show a prediction and the pixels that it was made from; null for none. */
function show(prediction, pixels) {
  const probabilities = prediction?.probabilities;
  $("label").textContent = prediction?.label ?? "–";
  $("confidence").textContent = prediction ? percent(prediction.confidence) : "";
  for (const item of $("bars").children) {
    const value = probabilities?.[item.dataset.label] ?? 0;
    item.classList.toggle("best", item.dataset.label === prediction?.label);
    item.querySelector(".track").setAttribute("aria-valuenow", (100 * value).toFixed(1));
    item.querySelector(".fill").style.transform = `scaleX(${value})`;
    item.querySelector(".number").textContent = prediction ? percent(value, 1) : "–";
  }
  const image = new ImageData(SIZE, SIZE);
  pixels?.forEach((grey, i) => image.data.set([grey, grey, grey, 255], 4 * i));
  $("seen").getContext("2d").putImageData(image, 0, 0);
  announce(prediction ? `${prediction.label}, ${percent(prediction.confidence)}` : "");
}

let announced = { text: "", at: 0, timer: 0 };

/** For screen readers: what a photo shows, once it stays; what a camera shows, now and then. */
function announce(text) {
  clearTimeout(announced.timer);
  const wait = stream ? Math.max(announced.at + 1000 * PATIENCE - performance.now(), 0) : 400;
  announced.timer = setTimeout(() => {
    if (text.split(",")[0] === announced.text.split(",")[0] && stream) return;
    announced = { text, at: performance.now(), timer: 0 };
    $("spoken").textContent = text;
  }, wait);
}

// --- Looking at the picture ----------------------------------------------------------------------------------

const automatic = () => finder !== null && $("automatic").checked;
let looking = false;
let again = false;

/** Look at the picture now, or once the look that is going on has ended. */
async function look() {
  again = true;
  if (looking) return;
  looking = true;
  while (again) {
    again = false;
    const at = picture;
    await lookOnce().catch((error) => at === picture && tell(error)); // a picture that is gone fails, too
  }
  looking = false;
}

async function lookOnce() {
  const at = picture;
  if (!at) return;
  const { width, height } = extent(at);
  const found = automatic() ? await find(at) : null;
  const looks = [];
  for (const face of found ?? [null]) {
    const pixels = await toFace(face ? await face.crop() : await crop(at, frame));
    const prediction = await timed("time", () => predictor.predict({ data: pixels, width: SIZE, height: SIZE }));
    looks.push({ face, pixels, prediction, size: face?.frame.size ?? frame.size });
  }
  const now = extent(at);
  if (at !== picture || now.width !== width || now.height !== height) return; // the picture has changed meanwhile
  if ((found !== null) !== automatic()) return;
  faces = found ? looks : [];
  chosen = chosenFace()?.face.frame ?? chosen;
  for (const id of ["frame", "frame-tag", "frame-help", "size-label"]) $(id).hidden = found !== null;
  drawFaces();
  if (!found) label($("frame-tag"), looks[0].prediction, square());
  showLook(found ? chosenFace() : looks[0]);
}

/** The face nearest to the one chosen before, at first the largest. Its number may differ: each search sorts by size. */
function chosenFace() {
  const distance = ({ face }) => (chosen ? Math.hypot(face.frame.x - chosen.x, face.frame.y - chosen.y) : 0);
  return faces.reduce((one, other) => (distance(other) < distance(one) ? other : one), faces[0]);
}

function forgetFaces() {
  faces = [];
  chosen = null;
  drawFaces();
}

let frames = 0;

/** The faces in a picture: of a camera those of the last search, but every few frames anew. */
async function find(at) {
  if (stream && faces.length && frames++ % SEARCH) return faces.map(({ face }) => face);
  return timed("finding-time", () => finder.find(at));
}

/** Show the bars of a face; of none, that none was found. */
function showLook(look) {
  const { prediction, pixels, size } = look ?? {};
  show(prediction, pixels);
  let text = "";
  if (!look) text = "No face was found. Come closer, or switch “Find faces” off and frame the face yourself.";
  else if (size < SIZE) text = `This face is ${Math.round(size)} pixels wide; below ${SIZE} the answer is less reliable than was measured.`;
  if ($("note").textContent !== text) $("note").textContent = text;
}

const times = new Map();

/** Run `work` and show how long it takes: of a camera the median of the last 30 times. */
async function timed(id, work) {
  const start = performance.now();
  const result = await work();
  const last = [...(stream ? (times.get(id) ?? []) : []), performance.now() - start].slice(-30);
  times.set(id, last);
  const median = [...last].sort((one, other) => one - other)[last.length >> 1];
  $(id).textContent = `${median.toFixed(1)} ms`;
  return result;
}

/** Put an element over a square of the picture: its centre and side in pixels, turned by an angle. */
function place(item, { x, y, size, angle = 0 }) {
  const { width, height } = extent(picture);
  const mirrored = isMirrored();
  const left = mirrored ? width - x : x;
  item.style.width = `${(100 * size) / width}%`;
  item.style.height = `${(100 * size) / height}%`;
  item.style.left = `${(100 * (left - size / 2)) / width}%`;
  item.style.top = `${(100 * (y - size / 2)) / height}%`;
  item.style.transform = angle ? `rotate(${mirrored ? -angle : angle}rad)` : "";
}

function drawFrame() {
  place($("frame"), square());
  const [least, most] = limits();
  $("size").value = String(Math.round((100 * Math.log(frame.size / least)) / Math.log(most / least)));
  $("size").setAttribute("aria-valuetext", `${Math.round(frame.size)} pixels`);
}

/** Buttons over the faces. They are kept from frame to frame, so that the focus is. */
function drawFaces() {
  const group = $("faces");
  while (group.children.length > 2 * faces.length) group.lastChild.remove();
  while (group.children.length < 2 * faces.length) {
    const index = group.children.length / 2;
    const button = element("button", { class: "face", type: "button" });
    button.addEventListener("click", () => {
      chosen = faces[index].face.frame;
      drawFaces();
      showLook(faces[index]);
    });
    group.append(button, element("span", { class: "tag", "aria-hidden": "true" }));
  }
  faces.forEach(({ face, prediction }, index) => {
    const [button, tag] = [group.children[2 * index], group.children[2 * index + 1]];
    button.setAttribute("aria-pressed", String(face.frame === chosen));
    button.setAttribute("aria-label", `Face ${index + 1} of ${faces.length}: ${short(prediction)}`);
    place(button, face.frame);
    label(tag, prediction, face.frame);
  });
}

const short = (prediction) => `${prediction.label} ${percent(prediction.confidence)}`;

/** Write a prediction below a square of the picture, or into its lower edge where the picture ends. */
function label(tag, prediction, { x, y, size }) {
  const { width, height } = extent(picture);
  const left = isMirrored() ? width - x : x;
  tag.textContent = short(prediction);
  tag.style.left = `clamp(3.5rem, ${(100 * left) / width}%, 100% - 3.5rem)`;
  tag.style.top = `min(${(100 * (y + size / 2)) / height}%, 100% - 2.2rem)`;
}

const isMirrored = () => $("picture").classList.contains("mirrored");

/** The frame's square as that of a face: its centre and side. */
const square = () => ({ x: frame.x + frame.size / 2, y: frame.y + frame.size / 2, size: frame.size });

// --- The picture: a photo or the camera ----------------------------------------------------------------------

async function openPhoto(file) {
  if (!file) return;
  const request = ++requests;
  try {
    const bitmap = await decode(file);
    if (!(await started) || request !== requests) return bitmap.close();
    stopCamera();
    const shrink = Math.min(1, SHOWN / Math.max(bitmap.width, bitmap.height));
    const canvas = $("photo");
    canvas.width = Math.max(Math.round(bitmap.width * shrink), 1);
    canvas.height = Math.max(Math.round(bitmap.height * shrink), 1);
    const context = canvas.getContext("2d", { alpha: false });
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    canvas.setAttribute("aria-label", `The photo ${file.name ?? ""}`.trim());
    put(bitmap, false);
  } catch (error) {
    if (request === requests) tell(error);
  }
}

/** Make `next` the picture of the page. */
function put(next, mirrored) {
  if (picture instanceof ImageBitmap && picture !== next) picture.close();
  picture = next;
  forgetFaces();
  $("message").hidden = true;
  $("note").textContent = "";
  $("empty").hidden = next !== null;
  $("picture").hidden = $("controls").hidden = next === null;
  $("picture").classList.toggle("mirrored", mirrored);
  $("photo").hidden = !(next instanceof ImageBitmap);
  $("video").hidden = next !== $("video");
  if (next === null) {
    $("frame-help").hidden = true;
    return show(null);
  }
  fit();
}

/** Give the page the shape of the picture, and the frame its first place in it. */
function fit() {
  const { width, height } = extent(picture);
  $("picture").style.setProperty("--ratio", String(width / height));
  const size = initialSize(width, height);
  frame = { x: (width - size) / 2, y: (height - size) * 0.4, size };
  move({});
}

/** A small square picture is a cropped face already; in any other the face is somewhere in the middle. */
function initialSize(width, height) {
  const short = Math.min(width, height);
  return width === height && width <= 256 ? width : short * 0.6;
}

async function startCamera() {
  const request = ++requests;
  let opened = null;
  try {
    opened = await openCamera();
    if (request !== requests) return release(opened);
    $("video").srcObject = opened;
    await $("video").play();
    if (request !== requests) return release(opened);
    await useCamera(opened);
  } catch (error) {
    if (opened && opened !== stream) release(opened);
    if (request === requests) tell(error);
  }
}

async function openCamera() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new FertoolsError("The camera can only be used over https or on localhost. Choose a photo instead.");
  }
  try {
    const video = { ...wanted, width: { ideal: 640 }, height: { ideal: 480 } };
    return await navigator.mediaDevices.getUserMedia({ video, audio: false });
  } catch (error) {
    wanted = USUAL; // the other one may be unplugged or in use
    const reasons = {
      NotAllowedError: "The camera was refused. Allow it for this page in the browser's settings, or choose a photo.",
      NotFoundError: "No camera was found. Choose a photo instead.",
      NotReadableError: "The camera cannot be read: another program may be using it.",
    };
    throw new FertoolsError(reasons[error.name] ?? `The camera cannot be used: ${error.message}`);
  }
}

/** Make the camera that plays in the video the picture of the page. */
async function useCamera(opened) {
  stream = opened;
  const [track] = stream.getVideoTracks();
  track.addEventListener("ended", () => {
    stopCamera();
    put(null, false);
    tell(new FertoolsError("The camera has stopped. Start it again, or choose a photo."));
  });
  times.clear();
  $("camera").setAttribute("aria-pressed", "true");
  $("camera").textContent = "Stop the camera";
  document.body.classList.add("live");
  $("frames").hidden = false;
  put($("video"), track.getSettings().facingMode !== "environment");
  follow(opened);
  cameras = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
  if (stream === opened) $("switch").hidden = cameras.length < 2;
}

/** The camera to ask for instead of the one that is on: a phone's faces somewhere, a computer's are just several. */
function otherCamera() {
  const { facingMode, deviceId } = stream.getVideoTracks()[0].getSettings();
  if (facingMode) return { facingMode: facingMode === "user" ? "environment" : "user" };
  const index = cameras.findIndex((camera) => camera.deviceId === deviceId);
  return { deviceId: { exact: cameras[(index + 1) % cameras.length].deviceId } };
}

/** Look at the camera's newest frame, again and again. */
async function follow(current) {
  const shown = [];
  while (stream === current) {
    await nextFrame($("video"));
    if (stream !== current) return;
    await look();
    shown.push(performance.now());
    while (shown[0] < shown.at(-1) - 2000) shown.shift();
    const seconds = (shown.at(-1) - shown[0]) / 1000;
    if (seconds > 0.5) $("rate").textContent = `${((shown.length - 1) / seconds).toFixed(1)} per second`;
  }
}

function nextFrame(video) {
  return new Promise((resolve) =>
    video.requestVideoFrameCallback ? video.requestVideoFrameCallback(resolve) : requestAnimationFrame(resolve),
  );
}

function stopCamera() {
  if (!stream) return;
  release(stream);
  stream = null;
  $("camera").setAttribute("aria-pressed", "false");
  $("camera").textContent = "Use the camera";
  $("switch").hidden = true;
  $("frames").hidden = true;
  $("rate").textContent = "–";
  document.body.classList.remove("live");
}

/** Switch a camera off. */
function release(opened) {
  for (const track of opened.getTracks()) track.stop();
  if ($("video").srcObject === opened) $("video").srcObject = null;
}

// --- The frame ------------------------------------------------------------------------------------------------

/** The smallest and the largest frame of the picture, in its pixels. */
function limits() {
  const { width, height } = extent(picture);
  const most = Math.min(width, height);
  return [Math.min(16, most / 2), most];
}

/** Move the frame, within the picture: a new place of its upper left corner, or a new size around its middle. */
function move({ x, y, size }) {
  const { width, height } = extent(picture);
  const [least, most] = limits();
  const side = Math.min(Math.max(size ?? frame.size, least), most);
  const shift = (frame.size - side) / 2;
  const inside = (value, length) => Math.min(Math.max(value, 0), length - side);
  frame = { x: inside(x ?? frame.x + shift, width), y: inside(y ?? frame.y + shift, height), size: side };
  drawFrame();
  look();
}

/** What the pointers that are down do: one drags the frame or its corner, two pinch it. */
function handlePointers() {
  const pointers = new Map();
  let began = null;
  const begin = (corner) => {
    const [one, other] = [...pointers.values()];
    const spread = other ? Math.hypot(one.x - other.x, one.y - other.y) : 0;
    began = { frame, corner, spread, from: { ...one } };
  };
  const box = $("frame");
  box.addEventListener("pointerdown", (event) => {
    box.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    begin([...box.children].indexOf(event.target));
  });
  box.addEventListener("pointermove", (event) => {
    if (!pointers.has(event.pointerId)) return;
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    const [one, other] = [...pointers.values()];
    if (other) {
      move({ size: (began.frame.size * Math.hypot(one.x - other.x, one.y - other.y)) / began.spread });
      return;
    }
    const shown = $("picture").getBoundingClientRect();
    const scale = extent(picture).width / shown.width;
    const mirrored = isMirrored() ? -1 : 1;
    const [right, down] = [(one.x - began.from.x) * scale * mirrored, (one.y - began.from.y) * scale];
    if (began.corner < 0) return move({ x: began.frame.x + right, y: began.frame.y + down });
    resize(began, right, down, mirrored);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    box.addEventListener(name, (event) => {
      pointers.delete(event.pointerId);
      if (pointers.size) begin(-1);
    });
  }
}

/** Pull a corner (0 to 3: upper left, upper right, lower left, lower right): the opposite one stays. */
function resize({ frame: start, corner }, right, down, mirrored) {
  const outward = { x: (corner % 2 ? 1 : -1) * mirrored, y: corner < 2 ? -1 : 1 };
  const { width, height } = extent(picture);
  const [least] = limits();
  // As far as the picture reaches from the corner that stays.
  const room = {
    x: outward.x > 0 ? width - start.x : start.x + start.size,
    y: outward.y > 0 ? height - start.y : start.y + start.size,
  };
  const pulled = start.size + (right * outward.x + down * outward.y) / 2;
  const size = Math.max(Math.min(pulled, room.x, room.y), least);
  frame = { ...frame, size };
  move({
    x: outward.x > 0 ? start.x : start.x + start.size - size,
    y: outward.y > 0 ? start.y : start.y + start.size - size,
  });
}

function handleKeys(event) {
  const step = frame.size * (event.shiftKey ? 0.1 : 0.02);
  const mirrored = isMirrored() ? -1 : 1;
  const moves = {
    ArrowLeft: { x: frame.x - step * mirrored },
    ArrowRight: { x: frame.x + step * mirrored },
    ArrowUp: { y: frame.y - step },
    ArrowDown: { y: frame.y + step },
    "+": { size: frame.size * 1.05 },
    "=": { size: frame.size * 1.05 },
    "-": { size: frame.size / 1.05 },
  };
  if (!moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  move(moves[event.key]);
}

// --- What people do ---------------------------------------------------------------------------------------------

function listen() {
  for (const id of ["choose", "take"]) {
    $(id).addEventListener("change", (event) => {
      openPhoto(event.target.files[0]);
      event.target.value = ""; // so that the same file can be chosen again
    });
  }
  $("camera").addEventListener("click", () => {
    if (!stream) return startCamera();
    stopCamera();
    put(null, false);
  });
  $("switch").addEventListener("click", () => {
    wanted = otherCamera();
    stopCamera();
    put(null, false);
    startCamera();
  });
  // A phone that is turned turns its camera's picture too. The faces of before are elsewhere in it.
  $("video").addEventListener("resize", () => {
    if (picture !== $("video")) return;
    forgetFaces();
    fit();
  });
  $("automatic").addEventListener("change", () => {
    // By hand it goes on from where the face was found.
    const found = chosenFace()?.face.frame;
    faces = [];
    drawFaces();
    if (found && !automatic()) {
      frame = { ...frame, size: found.size };
      move({ x: found.x - found.size / 2, y: found.y - found.size / 2 });
    } else look();
  });
  $("size").addEventListener("input", (event) => {
    const [least, most] = limits();
    move({ size: least * (most / least) ** (Number(event.target.value) / 100) });
  });
  $("frame").addEventListener("keydown", handleKeys);
  $("frame").addEventListener("wheel", (event) => {
    event.preventDefault();
    move({ size: frame.size * Math.exp(-event.deltaY / 500) });
  });
  handlePointers();
}

function listenForFiles() {
  const stage = $("stage");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    stage.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) stage.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) openPhoto(file);
    else tell(new FertoolsError("What was dropped is not a file: save the picture first, then drop its file."));
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file) openPhoto(file);
  });
}
