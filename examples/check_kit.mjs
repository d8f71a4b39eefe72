/**
 * Run a kit in Node with onnxruntime-web: node examples/check_kit.mjs kit.zip [WEB_FOLDER] [result.json]
 *
 *     fertools verify exported/compact --kit kit.zip
 *     fertools web                                    # writes web/: the scripts and onnxruntime-web
 *     node examples/check_kit.mjs kit.zip web result.json
 *     fertools verify exported/compact --device result.json
 *
 * Needs Node 20.19 or newer. The exit code is 1 if a file fails.
 */
import { readFileSync, writeFileSync } from "node:fs";
import os from "node:os";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [zip, folder = "web", out = "result.json"] = process.argv.slice(2);
if (!zip) {
  console.error("usage: node check_kit.mjs kit.zip [WEB_FOLDER] [result.json]");
  process.exit(2);
}
try {
  const { check, passed, readKit } = await import(pathToFileURL(resolve(folder, "kit.js")));
  const kit = readKit(new Uint8Array(readFileSync(zip)));
  const processor = os.cpus()[0]?.model.trim() || os.arch();
  const system = `${os.type()} ${os.release()} ${os.arch()}`;
  const result = await check(kit, { processor: `${processor}, Node ${process.version}`, system });
  writeFileSync(out, `${JSON.stringify(result, null, 1)}\n`);
  console.log(`${result.model}, ${result.images.count} images, ${result.device.processor}`);
  console.log(`onnxruntime-web ${result.device.onnxruntime}, ${result.provider}, ${result.threads} thread\n`);
  for (const row of result.files) {
    const figures = [`${(100 * row.agreement).toFixed(2)}%`, row.largest_difference.toExponential(1), row.milliseconds.toFixed(2)];
    console.log(`${row.file.padEnd(20)} same class ${figures[0]}, largest difference ${figures[1]}, ${figures[2]} ms per image`);
  }
  console.log(`\nWrote ${out}. Next, where the model was made:\n  fertools verify EXPORT --device ${out}`);
  process.exitCode = passed(result) ? 0 : 1;
} catch (error) {
  console.error(`Error: ${error.message}`);
  process.exitCode = 1;
}
