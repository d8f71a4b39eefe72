"""Put fertools serve under load, compare it with a Predictor in a loop, and check all its answers.

::

    python benchmarks/serve.py --json serve.json
    python benchmarks/serve.py --rounds 0 --requests 100000

The load comes from wrk (https://github.com/wg/wrk, ``apt install wrk``) on one thread: 1, 8 and 64 clients,
each on its own connection, send one face per request in the Open Inference Protocol's binary tensors and wait
for the answer. wrk, the server and its network share the processors of this machine; the loop has them to
itself. A round is the loop and then each number of clients; a row is the best of the rounds. ``CPU`` is the
processor time of the loop or the server, which other work on the machine disturbs less than the rates.

Then come mixed requests from 16 clients, a fifth of them bad: faces in binary tensors, in JSON and as
pictures; invalid or truncated pictures, wrong shapes, missing bytes, another model. Each answer must be the
Predictor's or the correct error. The server's resident memory is read after the first tenth and at the end.
Then the server gets SIGTERM in the middle of the load: the clients continue until they are asked to close
their connections, and every request must be answered. The exit code is 1 if anything was wrong or lost.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from fertools.data import synthetic
from fertools.processor import int8_features, processor
from fertools.runtime import Predictor
from fertools.runtime.threads import usable_cpus

FACES = 256
CLIENTS = (1, 8, 64)
MIXED_CLIENTS = 16

#: How wrk makes requests from the faces in a file, and what it prints at the end.
SCRIPT = """
local requests, turn = {}, 0

function init(arguments)
  local file = io.open(arguments[1], "rb")
  local pixels, head = file:read("*a"), arguments[2]
  file:close()
  local headers = {["Inference-Header-Content-Length"] = tostring(#head)}
  for start = 1, #pixels, 48 * 48 do
    table.insert(requests, wrk.format("POST", nil, headers, head .. pixels:sub(start, start + 48 * 48 - 1)))
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  local p50, p99 = latency:percentile(50) / 1e3, latency:percentile(99) / 1e3
  local failed = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format('\\n{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "failed": %d}\\n',
    summary.requests, summary.duration / 1e6, p50, p99, failed))
end
"""


@dataclass(frozen=True)
class Rate:
    """Best round of one way; times in milliseconds, processor time per image in microseconds."""

    clients: int
    rate: float
    p50: float
    p99: float
    cpu: float
    failed: int = 0


@dataclass(frozen=True)
class Mixed:
    """Results of the mixed requests; memory in MiB."""

    requests: int
    bad: int
    wrong: int
    lost: int
    after_sigterm: int
    exit_code: int
    difference: float
    memory_early: float
    memory: float


class Server:
    """``fertools serve`` on one thread, in its own process."""

    def __init__(self, model: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.model, self.url = model, f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "fertools", "serve", model, "--port", str(port), "--threads", "1"]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while True:
            try:
                httpx.get(f"{self.url}/v2/health/ready").raise_for_status()
                return
            except httpx.HTTPError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise
                time.sleep(0.1)

    @property
    def infer(self) -> str:
        """Return the route for faces."""
        return f"{self.url}/v2/models/{self.model}/infer"

    def cpu(self) -> float:
        """Return the processor time so far, in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> float:
        """Return the resident memory in MiB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def end(self) -> int:
        """Stop the server if it still runs; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def serving(model: str) -> Iterator[Server]:
    server = Server(model)
    try:
        yield server
    finally:
        server.end()


def request(faces: np.ndarray, **more: Any) -> dict[str, Any]:
    """Return the JSON part of a request."""
    image = {"name": "image", "datatype": "UINT8", "shape": [len(faces), 48, 48, 1], **more}
    return {"inputs": [image], "parameters": {"binary_data_output": True}}


def binary(faces: np.ndarray) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a request with binary tensors."""
    head = json.dumps(request(faces, parameters={"binary_data_size": faces.size})).encode()
    return head + faces.tobytes(), {"Inference-Header-Content-Length": str(len(head))}


def loop(predictor: Predictor, faces: np.ndarray, seconds: float) -> Rate:
    """One face after the other."""
    times: list[float] = []
    cpu, begin = time.process_time(), time.perf_counter()
    while (now := time.perf_counter()) - begin < seconds:
        predictor.probabilities(faces[len(times) % len(faces)][None])
        times.append(time.perf_counter() - now)
    rate = len(times) / (time.perf_counter() - begin)
    p50, p99 = np.percentile(times, (50, 99)) * 1e3
    return Rate(0, rate, float(p50), float(p99), (time.process_time() - cpu) / len(times) * 1e6)


def load(server: Server, script: Path, faces: Path, clients: int, seconds: float) -> Rate:
    """Run wrk and return its figures."""
    head = json.dumps(request(np.empty(1), parameters={"binary_data_size": 48 * 48}))
    cpu = server.cpu()
    done = subprocess.run(
        [
            *("wrk", "--threads", "1", "--connections", str(clients), "--duration", f"{seconds:.0f}"),
            *("--script", script, server.infer, "--", faces, head),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return Rate(
        clients,
        found["requests"] / found["seconds"],
        found["p50"],
        found["p99"],
        (server.cpu() - cpu) / found["requests"] * 1e6,
        found["failed"],
    )


def rates(model: str, faces: np.ndarray, rounds: int, seconds: float) -> list[Rate]:
    """Return the best round of the loop and of each number of clients."""
    predictor = Predictor(model, threads=1)
    found: list[list[Rate]] = []
    with tempfile.TemporaryDirectory() as name, serving(model) as server:
        script, pixels = Path(name, "load.lua"), Path(name, "faces")
        script.write_text(SCRIPT)
        pixels.write_bytes(faces.tobytes())
        load(server, script, pixels, 8, 1)  # to warm up
        for _ in range(rounds):
            loads = (load(server, script, pixels, clients, seconds) for clients in CLIENTS)
            found.append([loop(predictor, faces, seconds), *loads])
    return [max(each, key=lambda one: one.rate) for each in zip(*found, strict=True)]


def png(face: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(face).save(file, "PNG")
    return file.getvalue()


class Mix:
    """Makes requests of all kinds and counts wrong answers."""

    #: The kinds of ten requests.
    KINDS = ("binary", "json", "picture", "several", "bad", "binary", "picture", "binary", "several", "bad")

    def __init__(self, server: Server, faces: np.ndarray) -> None:
        self.server, self.faces = server, faces
        self.expected = Predictor(server.model, threads=1).probabilities(faces)
        self.numbers = count()
        self.answered = self.bad = self.wrong = self.lost = self.after_sigterm = 0
        self.difference = 0.0
        self.ending = False
        self.lock = threading.Lock()
        body, headers = binary(faces[:1])
        post = partial(httpx.Client.post, url=server.infer)
        predict = partial(httpx.Client.post, url=f"{server.url}/predict")
        picture = png(np.random.default_rng(0).integers(0, 256, (99, 99), dtype=np.uint8))
        wrong_shape = json.dumps(request(faces[:1], data=[0] * 2303)).encode()
        #: Bad requests and the expected status.
        self.bad_requests: list[tuple[Callable[..., httpx.Response], int]] = [
            (partial(predict, content=b"no picture"), 422),
            (partial(predict, content=picture[: len(picture) // 2]), 422),
            (partial(predict, content=b""), 400),
            (partial(post, content=body[:-1], headers=headers), 400),
            (partial(post, content=wrong_shape), 400),
            (partial(post, content=b"{"), 400),
            (partial(post, content=bytes(11 * 2**20)), 413),
            (partial(httpx.Client.post, url=server.infer.replace(server.model, "other"), content=body), 404),
        ]

    def client(self) -> None:
        """Send requests one by one until the server asks to close the connection."""
        with httpx.Client(timeout=60) as client:
            while True:
                try:
                    answer, wrong, bad, difference = self.ask(client, next(self.numbers))
                except httpx.TransportError:
                    with self.lock:
                        self.lost += 1
                    if self.server.process.poll() is not None:
                        return
                    continue
                with self.lock:
                    self.answered += 1
                    self.bad += bad
                    self.wrong += wrong
                    self.difference = max(self.difference, difference)
                    self.after_sigterm += self.ending
                if self.ending and answer.headers.get("connection") == "close":
                    return

    def ask(self, client: httpx.Client, number: int) -> tuple[httpx.Response, bool, bool, float]:
        """Return the answer, whether it is wrong, whether the request was bad, and the difference."""
        kind = self.KINDS[number % len(self.KINDS)]
        start = number % (len(self.faces) - 5)
        if kind == "bad":
            send, status = self.bad_requests[number // 5 % len(self.bad_requests)]
            answer = send(client)
            return answer, answer.status_code != status or not answer.json()["error"], True, 0
        faces = self.faces[start : start + (5 if kind == "several" else 1)]
        if kind == "picture":
            answer = client.post(f"{self.server.url}/predict", content=png(faces[0]))
        elif kind == "json":
            answer = client.post(self.server.infer, json=request(faces, data=faces.tolist()))
        else:
            body, headers = binary(faces)
            answer = client.post(self.server.infer, content=body, headers=headers)
        if answer.status_code != 200:
            return answer, True, False, 0
        if kind == "picture":
            rows = np.array([*answer.json()["probabilities"].values()], np.float32)
        else:
            length = int(answer.headers["inference-header-content-length"])
            rows = np.frombuffer(answer.content[length:], np.float32)
        expected = self.expected[start : start + len(faces)].reshape(-1)
        off = float(np.abs(rows - expected).max()) if rows.shape == expected.shape else 1.0
        return answer, off > 1e-6, False, off


def mixed(model: str, faces: np.ndarray, requests: int) -> Mixed:
    """Send the requests, then stop the server under load."""
    with serving(model) as server:
        mix = Mix(server, faces)
        threads = [threading.Thread(target=mix.client) for _ in range(MIXED_CLIENTS)]
        for thread in threads:
            thread.start()
        while mix.answered < requests // 10:
            time.sleep(0.01)
        early = server.resident()
        while mix.answered < requests:
            time.sleep(0.01)
        memory = server.resident()
        mix.ending = True
        code = server.end()
        for thread in threads:
            thread.join(60)
        return Mixed(
            mix.answered,
            mix.bad,
            mix.wrong,
            mix.lost,
            mix.after_sigterm,
            code,
            mix.difference,
            early,
            memory,
        )


def table(document: dict[str, Any]) -> str:
    """The result in Markdown."""
    lines = []
    if document["rounds"]:
        lines += [
            "| | | images/s | of the loop's | p50 ms | p99 ms | CPU µs an image |",
            "|---|---|---|---|---|---|---|",
        ]
    for each in document["models"]:
        model = each["model"]
        for row in each["rates"]:
            way = {0: "loop", 1: "1 client"}.get(row["clients"], f"{row['clients']} clients")
            share = row["rate"] / each["rates"][0]["rate"]
            figures = (
                f"{row['rate']:,.0f} | {share:.0%} | {row['p50']:.2f} | {row['p99']:.2f} | {row['cpu']:.0f}"
            )
            lines.append(f"| {model} | {way} | {figures} |")
    if document["rounds"]:
        lines += ["", f"Best of {document['rounds']} rounds of {document['seconds']:g} s each way."]
    for each in document["models"]:
        if (told := each["mixed"]) is not None:
            lines += [
                "",
                f"{each['model']}: {told['requests']:,} mixed requests, {told['bad']:,} of them bad:"
                f" {told['wrong']} wrong answers, at most {told['difference']:.0e} off; {told['lost']} lost,"
                f" {told['after_sigterm']} answered after SIGTERM; {told['memory_early']:.0f} MiB after a"
                f" tenth, {told['memory']:.0f} MiB in the end.",
            ]
    lines += [
        "",
        f"int8, one thread of onnxruntime; {document['cpus']} processors of {document['processor']}.",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["compact", "sequential"])
    parser.add_argument("--rounds", type=int, default=3, help="0 for only the mixed requests (default: 3)")
    parser.add_argument(
        "--seconds", type=float, default=5, help="duration of each way in a round (default: 5)"
    )
    parser.add_argument(
        "--requests", type=int, default=20_000, help="mixed requests; 0 for none (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    faces = synthetic.generate(0, 0, FACES).split("test").images
    models = []
    for model in options.models:
        found = rates(model, faces, options.rounds, options.seconds) if options.rounds else []
        asked = mixed(model, faces, options.requests) if options.requests else None
        models.append(
            {"model": model, "rates": [asdict(rate) for rate in found], "mixed": asked and asdict(asked)}
        )
    document = {
        "processor": f"{processor()[0]} ({', '.join(int8_features())})",
        "cpus": usable_cpus(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "models": models,
    }
    print(table(document))
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    failed = [row["failed"] for each in models for row in each["rates"]]
    wrong = [told["wrong"] + told["lost"] for each in models if (told := each["mixed"])]
    return int(any(failed) or any(wrong))


if __name__ == "__main__":
    sys.exit(main())
