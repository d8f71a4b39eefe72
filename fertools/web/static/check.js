/** The page that runs a kit on this device. What it computes is `kit.js`'s. */
import { FertoolsError } from "./fertools.js";
import { check, passed, readKit } from "./kit.js";

const $ = (id) => document.getElementById(id);
/** Milliseconds between two looks at the page while networks run. */
const BREATH = 100;

let busy = false;

$("unserved").remove();
$("name").value = called(navigator.userAgent);
$("choose").disabled = false;
$("choose").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = ""; // so that the same file can be chosen again
  if (file) run(file);
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) run(file);
});
document.documentElement.dataset.ready = "";
// On https and localhost alone; elsewhere the page works, but not without its server.
navigator.serviceWorker?.register("sw.js").catch(() => {});

/** @param {File} file kit.zip */
async function run(file) {
  if (busy) return;
  busy = $("choose").disabled = true;
  $("message").hidden = $("result").hidden = true;
  $("note").textContent = `Reading ${file.name} …`;
  try {
    await painted();
    const kit = readKit(new Uint8Array(await file.arrayBuffer()));
    $("progress").hidden = false;
    const device = { processor: $("name").value.trim() || called(navigator.userAgent), system: navigator.userAgent };
    show(await check(kit, device, breathing()), kit.left);
  } catch (error) {
    if (!(error instanceof FertoolsError)) console.error(error);
    $("message").textContent = `${file.name}: ${error.message}`;
    $("message").hidden = false;
    $("note").textContent = "";
  }
  $("progress").hidden = true;
  busy = $("choose").disabled = false;
}

/** Shows how far it is, now and then: each look lets the browser draw. */
function breathing() {
  let last = performance.now();
  return async (done, total) => {
    if (done > 1 && done < total && performance.now() - last < BREATH) return;
    $("progress").value = done / total;
    if (done === 1) $("note").textContent = `Running ${total} images …`;
    await painted();
    last = performance.now();
  };
}

/** Not by requestAnimationFrame, which a page in the background is not given. */
const painted = () => new Promise((resolve) => setTimeout(resolve));

let address = "";

function show(result, left) {
  const good = passed(result);
  const { device, images, limit, model } = result;
  const verdict = good ? "It answers as it did" : `It does not: the same class on less than ${percent(limit, 1)}`;
  $("verdict").textContent = verdict;
  $("rows").replaceChildren(
    ...result.files.map((row) => {
      const bad = row.agreement < limit;
      const agreement = percent(row.agreement, 2) + (bad ? ", fails" : "");
      const cells = [agreement, row.largest_difference.toExponential(1), row.milliseconds.toFixed(2)];
      const line = element("tr", element("th", row.file), ...cells.map((text) => element("td", text)));
      line.firstChild.scope = "row";
      line.classList.toggle("bad", bad);
      return line;
    }),
  );
  const threads = `${result.threads} thread${result.threads > 1 ? "s" : ""}`;
  const unrun = left.length ? ` Not run by browsers: ${left.join(", ")}.` : "";
  $("made").textContent =
    `${model}, ${images.count} images, ${device.processor}, onnxruntime-web ${device.onnxruntime}, ${result.provider}, ${threads}.${unrun}`;
  $("note").textContent = `Done. ${verdict}.`; // the note is what screen readers are told of
  URL.revokeObjectURL(address);
  address = URL.createObjectURL(new Blob([`${JSON.stringify(result, null, 1)}\n`], { type: "application/json" }));
  $("save").href = address;
  $("result").hidden = false;
}

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

const percent = (share, digits) => `${(100 * share).toFixed(digits)}%`;

/** "Firefox 140 on Android": what a browser calls itself, in short. Most claim to be several; the first counts. */
function called(agent) {
  const names = { Edg: "Edge", OPR: "Opera", Firefox: "Firefox", FxiOS: "Firefox", HeadlessChrome: "Chrome", Chrome: "Chrome", CriOS: "Chrome", Version: "Safari" };
  const key = Object.keys(names).find((name) => agent.includes(`${name}/`));
  const version = key && agent.split(`${key}/`)[1].match(/^\d+/)?.[0];
  const system = agent.match(/Android|iPhone|iPad|Windows|Macintosh|CrOS|Linux/)?.[0];
  return [key ? `${names[key]} ${version ?? ""}`.trim() : "A browser", system].filter(Boolean).join(" on ");
}
