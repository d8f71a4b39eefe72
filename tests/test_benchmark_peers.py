"""The peers benchmark on a small model, in the engines that are installed, and the page that shows it."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from readme_peers import peers

from fertools.contract import INT8_FILE, KERAS_FILE, ONNX_FILE
from fertools.runtime import Predictor

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
IMAGES = 40
#: Always installed; the others come with the extra ``bench``.
INSTALLED = {
    "Keras predict": KERAS_FILE,
    "tf.function": KERAS_FILE,
    "onnxruntime fp32": ONNX_FILE,
    "onnxruntime int8": INT8_FILE,
    "fertools fp32": ONNX_FILE,
    "fertools int8": INT8_FILE,
}


def run(*arguments):
    command = [sys.executable, BENCHMARKS / "peers.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def done(small_run, small_export, tmp_path_factory):
    """A finished run, what it printed, and its JSON."""
    folder = tmp_path_factory.mktemp("peers")
    settings = ("--models", small_export, "--threads", 1, "--batches", 3, 1, "--rounds", 1)
    files = ("--json", folder / "peers.json", "--plot", folder / "peers.png")
    process = run(small_run.with_suffix(".npz"), *settings, "--images", IMAGES, *files)
    assert process.returncode == 0, process.stderr
    assert (folder / "peers.png").read_bytes().startswith(b"\x89PNG")
    return process.stdout, json.loads((folder / "peers.json").read_text())


def rows(document):
    (model,) = document["models"]
    return {row["engine"]: row for row in model["rows"]}


@pytest.mark.slow
def test_every_installed_engine_is_measured(done, small_export):
    _, document = done
    found = rows(document)
    assert found.keys() >= INSTALLED.keys()
    for engine, row in found.items():
        assert [(speed["threads"], speed["batch"]) for speed in row["speeds"]] == [(1, 1), (1, 3)]
        for speed in row["speeds"]:
            assert speed["rounds"] == [speed["milliseconds"]]
            assert speed["milliseconds"] > 0
        assert row["start_seconds"] > 0.01
        assert row["peak_bytes"] is None or 10e6 < row["peak_bytes"] < 2e9
        if engine in INSTALLED:
            assert row["bytes"] == (small_export / INSTALLED[engine]).stat().st_size
    for reason in document["models"][0]["left_out"].values():
        assert reason.endswith("is not installed: pip install 'fertools[bench]'")


@pytest.mark.slow
def test_the_answers_are_those_of_the_test_images(done, small_export, small_data):
    """40 images do not fill the last batch of 3."""
    found, test = rows(done[1]), small_data.split("test")
    images, labels = test.images[:IMAGES], test.labels[:IMAGES]
    answers = {
        name: Predictor(small_export, precision=precision, threads=1).probabilities(images).argmax(axis=1)
        for name, precision in (("fp32", "float32"), ("int8", "int8"))
    }
    assert (answers["fp32"] == labels).mean() > 0.5
    for name, answer in answers.items():
        for engine in ("onnxruntime", "fertools"):
            row = found[f"{engine} {name}"]
            assert row["accuracy"] == pytest.approx(np.mean(answer == labels))
            assert row["agreement"] == pytest.approx(np.mean(answer == answers["fp32"]))
    for engine in ("Keras predict", "tf.function"):
        assert found[engine]["accuracy"] == found["fertools fp32"]["accuracy"]
        assert (found[engine]["agreement"], found[engine]["dtype"]) == (1, "float32")


@pytest.mark.slow
def test_the_report_says_what_was_run_and_where(done):
    text, document = done
    assert document["command"].startswith("python benchmarks/peers.py small.npz --models small --threads 1")
    assert "/" not in document["command"].removeprefix("python benchmarks/")
    assert {"fertools", "tensorflow", "onnxruntime"} <= document["versions"].keys()
    assert (document["images"], document["rounds"], document["data"]["name"]) == (IMAGES, 1, "small.npz")
    assert all(seconds > 0 for seconds in document["imports"].values())
    lines = text.splitlines()
    for engine in INSTALLED:
        assert sum(line.startswith(f"{engine} ") for line in lines) == 1
    for batch in (1, 3):
        assert sum(line.startswith(f"fertools int8, one thread, batch {batch}: ") for line in lines) == 1


@pytest.mark.slow
def test_ratios_are_those_of_the_times(done):
    found = rows(done[1])
    for place, one in enumerate(done[1]["models"][0]["standings"]):
        times = {engine: row["speeds"][place]["milliseconds"] for engine, row in found.items()}
        ours = times["fertools int8"]
        assert one["times_onnxruntime_float32"] == pytest.approx(times["onnxruntime fp32"] / ours)
        assert one["times_tf_function"] == pytest.approx(times["tf.function"] / ours)
        assert one["overhead_ratio"] == pytest.approx(ours / times["onnxruntime int8"])


def test_the_rival_is_the_fastest_int8_of_another_engine(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    report = importlib.import_module("peer_report")

    def row(engine, precision, *rounds):
        speeds = (report.Speed(2, 64, rounds[0], rounds),)
        return report.Row(engine, engine.split()[0], precision, "uint8", 1, 0.5, 1.0, 1.0, None, speeds)

    (one,) = report.standings(
        [
            row("LiteRT int8", "int8", 5.0, 6.0, 50.0),
            row("OpenVINO int8", "int8", 4.0, 5.0, 40.0),
            row("OpenVINO bf16", "bfloat16", 1.0, 1.0, 1.0),
            row("onnxruntime int8", "int8", 2.0, 2.0, 2.0),
            row("fertools int8", "int8", 3.0, 3.0, 30.0),
        ]
    )
    # The median of 3/4, 3/5 and 30/40: a round that was slow for both has no more weight.
    assert (one.threads, one.batch, one.rival, one.time_ratio) == (2, 64, "OpenVINO int8", 0.75)
    assert (one.overhead_ratio, one.times_tf_function) == (1.5, None)
    assert not [*report.standings([row("LiteRT int8", "int8", 5.0)])]


@pytest.mark.slow
def test_what_fails_is_left_out_and_the_rest_goes_on(small_run, small_export, tmp_path):
    folder = shutil.copytree(small_export, tmp_path / "broken")
    (folder / KERAS_FILE).unlink()
    (folder / INT8_FILE).write_bytes((folder / INT8_FILE).read_bytes()[:-1])
    settings = ("--models", folder, "--threads", 1, "--batches", 1, "--rounds", 2, "--images", 2)
    process = run(small_run.with_suffix(".npz"), *settings, "--json", tmp_path / "peers.json")
    assert process.returncode == 0, process.stderr
    document = json.loads((tmp_path / "peers.json").read_text())
    (model,) = document["models"]
    assert not rows(document).keys() & {"Keras predict", "tf.function", "onnxruntime int8", "fertools int8"}
    assert model["left_out"]["tf.function"] == "the export has no model.keras"
    assert "truncated" in model["left_out"]["fertools int8"]
    assert "fertools int8: left out, " in process.stdout
    for engine in ("onnxruntime fp32", "fertools fp32"):
        row = rows(document)[engine]
        assert row["agreement"] is None
        assert [len(speed["rounds"]) for speed in row["speeds"]] == [2]
    assert not model["standings"]
    assert "- broken without tf.function: the export has no model.keras\n" in peers(document, {})
    assert " | - | " in peers(document, {})


def test_no_export(small_run, tmp_path):
    process = run(small_run.with_suffix(".npz"), "--models", tmp_path)
    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr == (
        f"error: {tmp_path}: not an export folder (no report.json); 'fertools export' makes one\n"
    )


@pytest.mark.slow
def test_the_page_has_the_tables(done):
    _, document = done
    document["models"][0]["rows"][0]["accuracy"] = 0.12345
    block = peers(document, {})
    assert "| small | Keras predict | 12.35% | 100.00% | " in block
    assert "\n| small | one thread, batch 3 | " in block
    tables = [line.count("|") for line in block.splitlines() if line.startswith("|")]
    engines = len(document["models"][0]["rows"])
    assert tables == [10] * (engines + 2) + [8] * 4
    assert document["command"] in block


@pytest.mark.slow
@pytest.mark.parametrize(("now", "told"), [(0.75, True), (0.5, False)])
def test_the_page_tells_of_earlier_weights(done, now, told):
    _, document = done
    (model,) = document["models"]
    (ours,) = (row for row in model["rows"] if row["engine"] == "fertools int8")
    ours["accuracy"] = 0.5
    rows = [{"model": "onnx"}, {"model": "int8", "evaluation": {"accuracy": now}}]
    block = peers(document, {"small": {"verification": {"rows": rows}}})
    assert ("\n`small` had other weights then, 50.00% in int8 against 75.00% now: " in block) == told
