"""The service as clients see it: a real process, tritonclient and plain HTTP."""

import asyncio
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hostile import tiled_tiff
from PIL import Image
from tiny_model import tiny_export

from fertools.cli import main
from fertools.errors import ConfigError
from fertools.faces import FaceFinder
from fertools.reading import MOST_PIXELS
from fertools.runtime import Predictor
from fertools.serving import Settings
from fertools.serving.batching import Batcher, FullError, NetworkError

httpx = pytest.importorskip("httpx", reason="needs httpx")
for package in ("fastapi", "uvicorn", "prometheus_client", "python_multipart"):
    pytest.importorskip(package, reason="needs the extra serve")

FACES = np.random.default_rng(0).integers(0, 256, (64, 48, 48), dtype=np.uint8)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class Server:
    """``fertools serve`` in a process of its own."""

    def __init__(self, model, *options):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        words = ["serve", model, "--port", self.port, "--threads", 1, *options]
        command = [sys.executable, "-m", "fertools", *map(str, words)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{self.url}/v2/health/ready").status_code == 200:
                    return
            except httpx.TransportError:
                assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.05)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        self.process.stderr.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_export(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(model):
    server = Server(model, "--queue-size", 100, "--max-body", 400_000, "--max-pixels", 40_000)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def photo():
    """200x200 pixels with a face, as PNG."""
    pytest.importorskip("cv2", reason="needs the extra faces")
    data = pytest.importorskip("skimage.data", reason="needs scikit-image")
    return png(data.astronaut()[20:220, 120:320])


@pytest.fixture(scope="module")
def expected(model):
    return Predictor(model, threads=1).probabilities(FACES)


def infer(server, document, body=b"", **headers):
    head = json.dumps(document).encode()
    if body:
        headers["inference-header-content-length"] = str(len(head))
    return httpx.post(f"{server.url}/v2/models/tiny/infer", content=head + body, headers=headers)


def tensor(count, **more):
    return {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [count, 48, 48, 1], **more}]}


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_works_unchanged(server, expected, binary, compression):
    http = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    client = http.InferenceServerClient(f"127.0.0.1:{server.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert client.get_model_metadata("tiny", "1")["inputs"] == [
        {"name": "image", "datatype": "UINT8", "shape": [-1, 48, 48, 1]}
    ]
    image = http.InferInput("image", [20, 48, 48, 1], "UINT8")
    image.set_data_from_numpy(FACES[:20, ..., None], binary_data=binary)
    wanted = http.InferRequestedOutput("probabilities", binary_data=binary)
    for outputs in (None, [wanted]):
        answer = client.infer(
            "tiny", [image], outputs=outputs, request_id="x", request_compression_algorithm=compression
        )
        np.testing.assert_array_equal(answer.as_numpy("probabilities"), expected[:20])
        assert answer.get_response()["id"] == "x"
    client.close()


def test_json_nested_and_flat(server, expected):
    for data in (FACES[:2].tolist(), FACES[:2].reshape(-1).tolist()):
        answer = infer(server, tensor(2, data=data)).json()
        (output,) = answer["outputs"]
        assert (output["name"], output["datatype"], output["shape"]) == ("probabilities", "FP32", [2, 7])
        np.testing.assert_array_equal(np.float32(output["data"]), expected[:2].reshape(-1))


@pytest.mark.parametrize(
    ("document", "body", "status", "reason"),
    [
        ([], b"", 400, "the request must have one input"),
        ({"inputs": []}, b"", 400, "the request must have one input"),
        (tensor(1), b"", 400, "image has neither data nor binary data"),
        (tensor(0), b"", 400, "must have the shape [n, 48, 48, 1]"),
        (tensor(True), b"", 400, "must have the shape [n, 48, 48, 1]"),
        (tensor(1, data=[1, 2]), b"", 400, "data must be 2304 whole numbers"),
        (tensor(1, data=[[1], [1, 2]]), b"", 400, "in lists of equal lengths"),
        (tensor(1, data=[256] * 2304), b"", 400, "data must be pixels"),
        (tensor(1, data=["x"] * 2304), b"", 400, "data must be 2304 whole numbers"),
        (tensor(1, data=["x" * 10_000, *[0] * 2303]), b"", 400, "data must be 2304 whole numbers"),
        (tensor(1, data=[0.5] * 2304), b"", 400, "data must be 2304 whole numbers"),
        (tensor(1, data=[float("nan")] * 2304), b"", 400, "data must be pixels"),
        (tensor(1, data=[10**400, *[0] * 2303]), b"", 400, "data must be 2304 whole numbers"),
        (tensor(1, data={"a": 0}), b"", 400, "data must be 2304 whole numbers"),
        (tensor(1, parameters={"binary_data_size": 2304}), b"x", 400, "1 images are 2304 bytes"),
        (tensor(101, parameters={"binary_data_size": 232704}), bytes(232704), 413, "at most 100"),
        (tensor(1, parameters={"binary_data_size": 2304.0}), bytes(2304), 400, "not 2304.0 told"),
        (tensor(10**4299, data=[]), b"", 400, "more images than the body has bytes"),
        (tensor(1, datatype="FP32"), b"", 400, "the input must be image of UINT8"),
        (tensor(1, datatype="\ud800"), b"", 400, "the input must be image of UINT8, not image of ?"),
        (tensor(1, data=[0] * 2304) | {"outputs": [{"name": "y"}]}, b"", 400, "there is no output y"),
    ],
)
def test_wrong_requests_are_told_why(server, document, body, status, reason):
    answer = infer(server, document, body)
    assert answer.status_code == status
    assert reason in answer.json()["error"]


@pytest.mark.parametrize("length", ["x", "-1", "0.5", "100000", "1" * 5000])
def test_a_wrong_length_of_the_json_document_is_told(server, length):
    headers = {"inference-header-content-length": length}
    answer = httpx.post(f"{server.url}/v2/models/tiny/infer", content=b"{}", headers=headers)
    assert answer.status_code == 400
    assert "must be a length within the body" in answer.json()["error"]


def test_limits_and_paths(server):
    def post(path, **more):
        answer = httpx.post(server.url + path, **more)
        return answer.status_code, answer.json()["error"]

    long = bytes(400_001)
    assert post("/predict", content=long) == (413, "the body has 400001 bytes; at most 400000 are taken")
    chunks = (bytes(100_000) for _ in range(5))
    assert post("/predict", content=chunks) == (413, "the body has more than 400000 bytes")
    wide = png(np.zeros((201, 200), np.uint8))
    assert post("/predict", content=wide) == (413, "40,200 pixels; at most 40,000 are taken")
    assert post("/predict", content=tiled_tiff(208)) == (413, "43,264 pixels; at most 40,000 are taken")
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", 15_000, 15_000, 8, 0, 0, 0, 0), b"IDAT")
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )
    assert post("/predict", content=bomb) == (413, "too many pixels; at most 40,000 are taken")
    assert post("/predict", content=b"") == (400, "the body is empty: send a picture")
    assert post("/predict?find_faces=perhaps", content=b"x")[0] == 400
    told = 400, "there is no parameter findfaces, only find_faces"
    assert post("/predict?findfaces=1", content=png(FACES[0])) == told
    status, reason = post("/predict", content=png(FACES[0])[:-700])
    assert (status, "truncated or damaged" in reason) == (422, True)
    assert post("/predict", content=b"x") == (422, "not an image file that Pillow can read")
    assert post("/predict", data={"a": "b"}, files={})[0] == 422
    assert post("/v2/models/other/infer", content=b"{}") == (404, "there is no model other, only tiny")
    assert post("/v2/models/tiny/versions/2/infer", content=b"{}")[0] == 404
    for path in ("/v2/models/tiny/infer", "/predict"):
        answer = httpx.get(server.url + path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert post("/nothing", content=b"") == (404, "Not Found")
    bomb = {"content": b"\x1f\x8b" + bytes(20), "headers": {"content-encoding": "gzip"}}
    assert post("/v2/models/tiny/infer", **bomb)[0] == 400
    zipped = __import__("gzip").compress(bytes(10**7))
    bomb = {"content": zipped, "headers": {"content-encoding": "gzip"}}
    assert post("/v2/models/tiny/infer", **bomb) == (413, "the body unpacks to more than 400000 bytes")


def test_a_picture(server, model):
    answer = Predictor(model, threads=1).predict(FACES[0]).to_dict()
    picture = png(FACES[0])
    assert httpx.post(f"{server.url}/predict", content=picture).json() == answer
    assert httpx.post(f"{server.url}/predict", files={"file": picture}).json() == answer


def test_find_faces(server, model, photo):
    url = f"{server.url}/predict?find_faces=1"
    (face,) = FaceFinder().find(photo)
    prediction = Predictor(model, threads=1).predict(face.crop)
    answer = httpx.post(url, content=photo)
    assert answer.json() == {"faces": [{**face.to_dict(), **prediction.to_dict()}]}
    answer = httpx.post(url, content=png(np.zeros((100, 100), np.uint8)))
    assert (answer.status_code, answer.json()) == (200, {"faces": []})


def test_answers_are_as_the_document_says(server, photo):
    from fertools.serving import schema

    document = httpx.get(f"{server.url}/openapi.json").json()
    assert "HTTPValidationError" not in json.dumps(document)
    told = document["paths"]["/predict"]["post"]["responses"]
    contents = {status: each["content"]["application/json"]["schema"] for status, each in told.items()}
    kinds = [{"$ref": f"#/components/schemas/{name}"} for name in ("Prediction", "Faces", "Error")]
    assert contents.pop("200")["anyOf"] == kinds[:2]
    assert contents == dict.fromkeys(("400", "408", "413", "415", "422", "500", "501", "503"), kinds[2])
    requests = {
        schema.Prediction: ("/predict", png(FACES[0])),
        schema.Faces: ("/predict?find_faces=1", photo),
        schema.Error: ("/predict", b"x"),
    }
    for kind, (path, body) in requests.items():
        answer = httpx.post(server.url + path, content=body).json()
        assert kind(**answer).model_dump(mode="json", exclude_unset=True) == answer


def test_the_page_and_the_document_need_nothing_from_elsewhere(server):
    for path in ("/", "/docs"):
        text = httpx.get(server.url + path).text
        assert "POST /predict" in text
        assert "POST /v2/models/{model}/infer" in text
        assert not re.search(r"https?://|<script|<link|src=", text)
    document = httpx.get(f"{server.url}/openapi.json").json()
    assert {"/predict", "/v2", "/v2/models/{model}/infer", "/metrics"} <= document["paths"].keys()


def value(text, name):
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def metric(server, name):
    return value(httpx.get(f"{server.url}/metrics", timeout=60).text, name)


def reaches(server, name, wanted):
    """Wait until a metric has a value."""
    until = time.monotonic() + 30
    while (found := metric(server, name)) != wanted:
        assert time.monotonic() < until, found
        time.sleep(0.1)


def test_metrics(server):
    good = 'fertools_requests_total{route="predict",status="200"}'
    bad = 'fertools_requests_total{route="predict",status="422"}'
    before = metric(server, good), metric(server, bad)
    httpx.post(f"{server.url}/predict", content=png(FACES[0]))
    httpx.post(f"{server.url}/predict", content=b"x")
    assert (metric(server, good), metric(server, bad)) == (before[0] + 1, before[1] + 1)
    assert metric(server, "fertools_held_images") == 0


HELD = b"POST /predict HTTP/1.1\r\nhost: here\r\ncontent-length: 1\r\n\r\n"  # its body never comes


@pytest.mark.parametrize(("route", "path"), [("predict", "/predict"), ("infer", "/v2/models/tiny/infer")])
def test_a_client_that_goes_before_its_body_is_counted_as_gone(server, route, path):
    name = f'fertools_requests_total{{route="{route}",status="499"}}'
    before = metric(server, name)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(HELD.replace(b"/predict", path.encode()))
        reaches(server, "fertools_held_images", 1)
    reaches(server, name, before + 1)
    assert metric(server, "fertools_held_images") == 0


def mixed(server, expected, requests):
    """Requests from 16 clients at once, a sixth of them bad; how many answers are not what they should be."""
    head = json.dumps(
        tensor(1, parameters={"binary_data_size": 2304}) | {"parameters": {"binary_data_output": True}}
    )
    headers = {"inference-header-content-length": str(len(head))}
    url = f"{server.url}/v2/models/tiny/infer"

    def work(client_number):
        wrong = 0
        with httpx.Client() as client:
            for number in range(client_number, requests, 16):
                face = number % len(FACES)
                if number % 6 == 0:
                    wrong += client.post(f"{server.url}/predict", content=b"no picture").status_code != 422
                elif number % 6 == 1:
                    answer = client.post(f"{server.url}/predict", content=png(FACES[face]))
                    given = [*answer.json()["probabilities"].values()]
                    wrong += not np.array_equal(np.float32(given), expected[face])
                else:
                    answer = client.post(url, content=head.encode() + FACES[face].tobytes(), headers=headers)
                    length = int(answer.headers["inference-header-content-length"])
                    given = np.frombuffer(answer.content[length:], np.float32)
                    wrong += not np.array_equal(given, expected[face])
        return wrong

    with ThreadPoolExecutor(16) as pool:
        return sum(pool.map(work, range(16)))


def test_bad_requests_harm_no_other(server, expected):
    assert mixed(server, expected, 300) == 0
    assert metric(server, "fertools_held_images") == 0


def test_several_workers_and_sigterm_loses_nothing(model, expected):
    """Clients that close their connection when they are asked to get an answer to everything they send."""
    server = Server(model, "--workers", 2)
    answers, failures, told, closed = [], [], [], threading.Event()

    def work():
        with httpx.Client() as client:
            while not closed.is_set():
                try:
                    answer = client.post(f"{server.url}/predict", content=png(FACES[0]), timeout=60)
                except httpx.TransportError as error:
                    failures.append(error)
                    return
                answers.append(np.float32([*answer.json()["probabilities"].values()]))
                if answer.headers.get("connection") == "close":  # as a load balancer would turn elsewhere
                    told.append(answer)
                    return

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(answers) < 40:
        time.sleep(0.05)
    assert metric(server, "fertools_requests_total") >= 40  # of both workers
    server.stop()
    closed.set()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert len(told) == 8
    assert all(np.array_equal(answer, expected[0]) for answer in answers)


def test_who_connects_too_late_is_refused_and_does_not_wait(model):
    """One worker still has a request; the others, and so the server, accept no more."""
    server = Server(model, "--workers", 2)
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.sendall(HELD)
        reaches(server, "fertools_held_images", 1)
        server.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", server.port)).close()
            except ConnectionRefusedError:
                break
            assert time.monotonic() < until
            time.sleep(0.1)
        assert server.process.poll() is None
        slow.sendall(b"x")
        assert slow.recv(100).startswith(b"HTTP/1.1 422 ")
    server.stop()
    assert server.process.returncode == 0


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs Linux's /proc")
def test_the_held_images_of_all_workers_are_counted_but_not_of_killed_ones(model):
    server = Server(model, "--workers", 2)
    with ExitStack() as opened, httpx.Client() as one:
        opened.callback(server.stop)
        for _ in range(16):
            client = opened.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            client.sendall(HELD)
        until = time.monotonic() + 30
        # The connection is kept, so that the same worker answers.
        while (held := value(one.get(f"{server.url}/metrics").text, "fertools_held_images")) != 16:
            assert time.monotonic() < until, held
            time.sleep(0.1)
        for child in (
            Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        ):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)
        reaches(server, "fertools_held_images", 0)


def test_the_rule_of_the_batches():
    """What is there goes together, up to the size; who is first waits for others no longer than told."""
    sizes = []

    async def scenario(delay, groups):
        def run(faces):
            time.sleep(0.02)
            return faces[:, 0, :7].astype(np.float32)

        batcher = Batcher(run, batch_size=8, max_delay=delay, capacity=1000, observe=sizes.append)
        batcher.start()
        answers = await asyncio.gather(*(batcher.submit(FACES[:count]) for count in groups))
        for count, rows in zip(groups, answers, strict=True):
            np.testing.assert_array_equal(rows, FACES[:count, 0, :7])
        await batcher.close()

    asyncio.run(scenario(0, [1] * 20))
    assert sizes == [8, 8, 4]
    sizes.clear()
    asyncio.run(scenario(0, [3, 3, 3, 20, 1]))
    assert sizes == [6, 3, 20, 1]
    sizes.clear()
    begin = time.perf_counter()
    asyncio.run(scenario(0.3, [1, 1]))
    assert sizes == [2]
    assert time.perf_counter() - begin > 0.3


def test_errors_of_any_kind_reach_the_requests_of_their_batch_alone(caplog):
    errors = [MemoryError("too many"), OSError("no device"), RuntimeError("CUDA out of memory")]

    def run(faces):
        if errors:
            raise errors.pop()
        return faces[:, 0, :7].astype(np.float32)

    async def scenario():
        batcher = Batcher(run, batch_size=2, max_delay=0, capacity=10)
        batcher.start()
        async with asyncio.timeout(20):
            answers = [batcher.submit(FACES[:1]) for _ in range(7)]
            results = await asyncio.gather(*answers, return_exceptions=True)
        await batcher.close()
        return results

    *failed, good = asyncio.run(scenario())
    assert [type(each) for each in failed] == [NetworkError] * 6
    np.testing.assert_array_equal(good, FACES[:1, 0, :7])
    assert caplog.messages[0] == "the network failed on 2 images: RuntimeError: CUDA out of memory"
    assert len(caplog.messages) == 3  # one of a batch


def test_the_room_is_bounded():
    told = []
    batcher = Batcher(lambda faces: faces, batch_size=8, max_delay=0, capacity=10, watch=told.append)
    batcher.admit(9)
    with pytest.raises(FullError, match="9 images are being worked on"):
        batcher.admit(2)
    batcher.release(9)
    batcher.admit(10)
    assert told == [9, 0, 10]


@asynccontextmanager
async def in_this_process(model, **settings):
    """The service, with room for one image unless told otherwise: a client of it, and its Batcher."""
    from fertools.serving.app import create

    app = create(Settings(str(model), threads=1, **{"queue_size": 1, **settings}))
    transport = httpx.ASGITransport(app)
    async with (
        asyncio.timeout(30),
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://here") as client,
    ):
        yield client, app.state.service.batcher


def test_the_settings_count(model, photo, monkeypatch):
    monkeypatch.setenv("FERTOOLS_DETECTOR", "missing.onnx")
    of_network = {"views": "flip", "precision": "float32"}
    of_finder = {"detector": "haar", "min_confidence": 1}
    of_batches = {"batch_size": 3, "max_delay": 60, "queue_size": 3}

    async def scenario():
        async with in_this_process(model, **of_network, **of_finder, **of_batches) as (client, _):
            before = (await client.get("/metrics")).text
            posts = [asyncio.create_task(client.post("/predict", content=png(face))) for face in FACES[:2]]
            done, _ = await asyncio.wait(posts, timeout=0.3)
            assert not done  # they wait for a third
            posts.append(asyncio.create_task(client.post("/predict", content=png(FACES[2]))))
            answers = [answer.json() for answer in await asyncio.gather(*posts)]
            after = (await client.get("/metrics")).text
            sizes = ("fertools_batch_images_sum", "fertools_batch_images_count")
            assert [value(after, size) - value(before, size) for size in sizes] == [3, 1]
            rows = [[*answer["probabilities"].values()] for answer in answers]
            expected = Predictor(model, **of_network).probabilities(FACES[:3])
            np.testing.assert_allclose(rows, expected, atol=1e-6)
            document = (await client.get("/openapi.json")).json()
            assert document["info"]["summary"] == "Facial expressions by tiny float32"
            assert (await client.post("/predict?find_faces=1", content=photo)).json() == {"faces": []}

    asyncio.run(scenario())


def test_sigterm_is_told_while_requests_are_still_answered(model):
    ended = threading.Event()

    async def scenario():
        async with in_this_process(model, drain=0.5) as (client, _):
            assert (await client.get("/v2/health/ready")).status_code == 200
            signal.raise_signal(signal.SIGTERM)
            while (await client.get("/v2/health/ready")).status_code != 503:
                await asyncio.sleep(0)
            assert (await client.get("/v2/models/tiny/ready")).status_code == 503
            answer = await client.post("/predict", content=png(FACES[0]))
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
            while not ended.is_set():
                await asyncio.sleep(0.01)

    before = signal.signal(signal.SIGTERM, lambda number, frame: ended.set())  # in the place of uvicorn's
    try:
        asyncio.run(scenario())
    finally:
        signal.signal(signal.SIGTERM, before)


def test_full_is_503_with_a_time_to_come_back(model):
    async def scenario():
        async with in_this_process(model) as (client, batcher):
            batcher.admit()
            for path in ("/predict", "/v2/models/tiny/infer"):
                answer = await client.post(path, content=b"x")
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            batcher.release()
            assert (await client.post("/predict", content=png(FACES[0]))).status_code == 200

    asyncio.run(scenario())


def test_more_faces_than_there_is_room_for_are_refused_for_good(model, photo):
    two = np.hstack([np.asarray(Image.open(io.BytesIO(photo)))] * 2)

    async def scenario():
        async with in_this_process(model) as (client, batcher):
            answer = await client.post("/predict?find_faces=1", content=png(two))
            assert (answer.status_code, answer.json()["error"]) == (
                413,
                "2 faces; at most 1 are taken at once",
            )
            assert batcher.held == 0

    asyncio.run(scenario())


def test_a_body_that_never_begins_does_not_hold_its_place(model, monkeypatch):
    async def never():
        await asyncio.sleep(60)
        yield b"x"

    async def scenario():
        async with in_this_process(model) as (client, _):
            for path in ("/predict", "/v2/models/tiny/infer"):
                monkeypatch.setattr("fertools.serving.app.PATIENCE", 0.1)
                answer = await client.post(path, content=never())
                assert answer.status_code == 408
                assert "the body did not arrive" in answer.json()["error"]
                monkeypatch.undo()
                assert (await client.post("/predict", content=png(FACES[0]))).status_code == 200

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("rows", "reason", "logged"),
    [
        (
            MemoryError("too many"),
            "the network failed",
            "the network failed on 1 images: MemoryError: too many",
        ),
        ([0], "the server failed", "a request failed"),  # no array: an error that no code foresees
    ],
)
def test_a_failure_of_the_server_is_told_logged_and_counted(model, monkeypatch, caplog, rows, reason, logged):
    def run(self, faces):
        if isinstance(rows, Exception):
            raise rows
        return rows

    async def scenario():
        document = json.dumps(tensor(1, data=FACES[0].tolist())).encode()
        requests = {"predict": ("/predict", png(FACES[0])), "infer": ("/v2/models/tiny/infer", document)}
        for route, (path, body) in requests.items():
            caplog.clear()
            with monkeypatch.context() as patched:
                patched.setattr(Predictor, "probabilities", run)
                async with in_this_process(model) as (client, _):
                    counts = f'fertools_requests_total{{route="{route}",status='
                    before = (await client.get("/metrics")).text
                    answer = await client.post(path, content=body)
                    after = (await client.get("/metrics")).text
            assert (answer.status_code, reason in answer.json()["error"]) == (500, True)
            assert caplog.messages == [logged]
            assert value(after, counts + '"500"') == value(before, counts + '"500"') + 1
            assert value(after, counts + '"200"') == value(before, counts + '"200"')
            assert value(after, "fertools_held_images") == 0

    asyncio.run(scenario())


def test_the_command(model, server):
    result = CliRunner().invoke(main, ["serve", "nothing"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: nothing: no such model")
    result = CliRunner().invoke(main, ["serve", str(model), "--workers", "2", "--detector", "nothing.onnx"])
    assert result.exit_code == 1  # instead of workers that fail one after the other
    assert result.stderr.startswith("Error: nothing.onnx: no such detector file")
    command = [sys.executable, "-m", "fertools", "serve", str(model), "--port", str(server.port)]
    for workers in ("1", "2"):
        taken = subprocess.run([*command, "--workers", workers], capture_output=True, text=True, timeout=60)
        assert taken.returncode == 1
        (line,) = taken.stderr.splitlines()
        assert line.startswith(f"Error: cannot serve on 127.0.0.1 port {server.port}: Address already in use")


def test_without_its_extra_the_command_says_only_what_to_install():
    blocked = "import sys; sys.modules['uvicorn'] = None; from fertools.cli import main; main()"
    command = [sys.executable, "-c", blocked, "serve"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["Error: uvicorn is not installed: pip install 'fertools[serve]'"]


def test_a_limit_of_pixels_that_pillow_does_not_go_beyond():
    assert Image.MAX_IMAGE_PIXELS == MOST_PIXELS
    with pytest.raises(ConfigError, match="at most 89478485"):
        Settings(max_pixels=MOST_PIXELS + 1)
