"""Time models in browsers' WebAssembly and in native onnxruntime.

::

    python benchmarks/web.py --json docs/web.json

Runs each model's fp32 and int8 files with onnxruntime-web in Chromium and Node and with native onnxruntime,
all on one thread at batch 1. The engines take turns, so that a busy moment affects all of them. Prints
medians over all runs, the ratio of each to native onnxruntime, and the gain of int8.

Needs Node and Debian's Chromium; a missing one is left out with a message.
"""

from __future__ import annotations

import argparse
import base64
import functools
import http.server
import json
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fertools.processor import int8_features, processor
from fertools.runtime import Predictor
from fertools.runtime.location import FILES, SHIPPED, model_files, shipped_model
from fertools.web import WebConfig, gather, write_page
from fertools.web.onnxruntime_web import VERSION

BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")

#: Runs ``count`` times on one face and returns the milliseconds of each.
TIMER = """
const timed = async (predictor, face, count) => {
  const times = [];
  for (let run = 0; run < count; run++) {
    const start = performance.now();
    await predictor.probabilities(face);
    times.push(performance.now() - start);
  }
  return times;
};
"""

Timer = Callable[[str, int], list[float]]


@contextmanager
def native(files: dict[str, Path], face: np.ndarray) -> Iterator[Timer]:
    """Run onnxruntime in our Predictor."""
    predictors = {name: Predictor(file, providers="cpu", threads=1) for name, file in files.items()}

    def run(name: str, count: int) -> list[float]:
        times = []
        for _ in range(count):
            start = time.perf_counter()
            predictors[name].probabilities(face)
            times.append(1000 * (time.perf_counter() - start))
        return times

    yield run


@contextmanager
def node(files: dict[str, Path], face: np.ndarray, site: Path) -> Iterator[Timer]:
    """Run onnxruntime-web in a Node process that answers one line of JSON with another."""
    script = f"""
import {{ readFileSync }} from "node:fs";
import {{ createInterface }} from "node:readline";
import {{ load }} from {json.dumps((site / "fertools.js").as_uri())};
{TIMER}
const files = {json.dumps({name: str(file) for name, file in files.items()})};
const face = new Uint8Array(Buffer.from("{encoded(face)}", "base64"));
const predictors = {{}};
for (const [name, file] of Object.entries(files)) {{
  predictors[name] = await load(new Uint8Array(readFileSync(file)));
}}
for await (const line of createInterface({{ input: process.stdin }})) {{
  const [name, count] = JSON.parse(line);
  console.log(JSON.stringify(await timed(predictors[name], face, count)));
}}
"""
    command = ["node", "--input-type=module", "-e", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def run(name: str, count: int) -> list[float]:
            print(json.dumps([name, count]), file=process.stdin, flush=True)
            times: list[float] = json.loads(process.stdout.readline())
            return times

        yield run
        process.stdin.close()


@contextmanager
def chromium(files: dict[str, Path], face: np.ndarray, site: Path, program: str) -> Iterator[Timer]:
    """Run onnxruntime-web in a page that a plain server sends to headless Chromium."""
    from playwright.sync_api import sync_playwright

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *values: Any) -> None:
            """Log nothing."""

    for name, file in files.items():
        shutil.copy(file, site / f"{name.replace(' ', '-')}.onnx")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(f"http://localhost:{server.server_port}/")
        code = f"""async ([name, face, count]) => {{
            {TIMER}
            const {{ load }} = await import("./fertools.js");
            window.predictors ??= {{}};
            window.predictors[name] ??= await load(`${{name.replace(" ", "-")}}.onnx`);
            const bytes = Uint8Array.from(atob(face), (letter) => letter.charCodeAt(0));
            return timed(window.predictors[name], bytes, count);
        }}"""
        yield lambda name, count: page.evaluate(code, [name, encoded(face), count])
        browser.close()
    server.shutdown()
    server.server_close()


def encoded(face: np.ndarray) -> str:
    return base64.b64encode(face.tobytes()).decode()


def measure(timers: dict[str, Timer], files: dict[str, Path], rounds: int, runs: int) -> list[dict[str, Any]]:
    """Let the engines take turns at each file."""
    rows = []
    for name in files:
        for run in timers.values():
            run(name, max(runs // 2, 5))  # warm
        times: dict[str, list[float]] = {engine: [] for engine in timers}
        for _ in range(rounds):
            for engine, run in timers.items():
                times[engine] += run(name, runs)
        model, precision = name.split(" ")
        medians = {engine: statistics.median(values) for engine, values in times.items()}
        rows.append({"model": model, "precision": precision, "ms": medians})
    return rows


def table(document: dict[str, Any]) -> str:
    """The result in Markdown."""
    engines = document["engines"]
    others = ", ".join(engine for engine in engines if engine != "native")
    lines = [
        f"| | | {' | '.join(f'{engine} ms' for engine in engines)} | {others} to native |",
        f"|---|---|{'---|' * len(engines)}---|",
    ]
    for row in document["rows"]:
        ms = row["ms"]
        ratios = [f"{ms[engine] / ms['native']:.1f}" for engine in engines if engine != "native"]
        lines.append(
            f"| {row['model']} | {row['precision']} | {' | '.join(f'{ms[engine]:.2f}' for engine in engines)}"
            f" | {', '.join(ratios)} |"
        )
    lines.append("")
    for model in dict.fromkeys(row["model"] for row in document["rows"]):
        ms = {row["precision"]: row["ms"] for row in document["rows"] if row["model"] == model}
        gains = ", ".join(
            f"{ms['float32'][engine] / ms['int8'][engine]:.1f} ({engine})" for engine in engines
        )
        lines.append(f"int8 of `{model}` compared with fp32, times as fast: {gains}.")
    lines += [
        "",
        f"Medians of {document['rounds']} rounds of {document['runs']} runs, engines in turns; batch 1, one"
        f" thread; {document['processor']}; {', '.join(document['versions'])}.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10, help="turns of each engine (default: 10)")
    parser.add_argument("--runs", type=int, default=20, help="runs a turn (default: 20)")
    parser.add_argument("--onnxruntime-web", type=Path, help="as for fertools web")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()

    files = {
        f"{model} {precision}": file
        for model in reversed(SHIPPED)
        if (folder := shipped_model(model)) is not None
        for precision, file in sorted(model_files(folder).items())
        if precision in FILES
    }
    face = np.random.default_rng(0).integers(0, 256, (1, 48, 48), dtype=np.uint8)
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    versions = [f"onnxruntime-web {VERSION}"]
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        site = Path(temporary) / "web"
        write_page(gather(WebConfig(onnxruntime_web=options.onnxruntime_web)), files["compact int8"], site)
        timers = {"native": stack.enter_context(native(files, face))}
        if shutil.which("node"):
            timers["Node"] = stack.enter_context(node(files, face, site))
            versions.append(f"Node {output('node', '--version')}")
        else:
            print("There is no Node: left out.")
        if program:
            timers["Chromium"] = stack.enter_context(chromium(files, face, site, program))
            versions.append(output(program, "--version"))
        else:
            print("There is no Chromium: left out.")
        import onnxruntime

        versions.append(f"native onnxruntime {onnxruntime.__version__}")
        rows = measure(timers, files, options.rounds, options.runs)
    document = {
        "engines": list(timers),
        "rows": rows,
        "rounds": options.rounds,
        "runs": options.runs,
        "processor": f"{processor()[0]} ({', '.join(int8_features())})",
        "versions": versions,
    }
    print(table(document))
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
