"""What the options of a command become: recorders stand for the functions and classes that get them."""

from pathlib import Path
from unittest.mock import ANY, MagicMock, call

import pytest
from click.testing import CliRunner

from fertools.cli import main
from fertools.errors import FertoolsError
from fertools.scoring import Scoring

pytest.importorskip("cv2", reason="OpenCV is not installed (the extra faces)")
pytest.importorskip("pyarrow", reason="needs the extra score")

FINDER = "fertools.faces.FaceFinder"
PREDICTOR = "fertools.cli.predict.Predictor"
COLLECT = "fertools.faces.collecting.collect"
SCORE = "fertools.cli.score.score"
SCORING_PREDICTOR = "fertools.scoring.scoring.Predictor"


def watched(finder, predictor, tracker, video, threads):
    """The calls of ``fertools watch``. A recorder returns its own name."""
    return {
        FINDER: finder,
        "cv2.setNumThreads": call(threads),
        "fertools.runtime.Predictor": predictor,
        "fertools.faces.Tracker": call(FINDER, "fertools.runtime.Predictor", **tracker),
        "fertools.faces.Video": video,
    }


#: Words of the command line -> name -> how it is called.
CASES = {
    "watch video.mp4": watched(
        call(None, min_confidence=None, longest_side=320),
        call(None, precision="auto", providers="cpu", threads=1),
        {"every": 5, "smoothing": 0.5},
        call("video.mp4", size=None, rate=None, live=False),
        1,
    ),
    "watch - --model m --precision float32 --detector haar --min-confidence 0.7 --longest-side 480 --every 2"
    " --smooth 0.25 --threads 3 --size 64x48 --rate 10 --live": watched(
        call("haar", min_confidence=0.7, longest_side=480),
        call("m", precision="float32", providers="cpu", threads=3),
        {"every": 2, "smoothing": 0.25},
        call("-", size=(64, 48), rate=10, live=True),
        3,
    ),
    "predict a.png": {
        PREDICTOR: call(None, precision="auto", providers="auto", threads=None, views="single")
    },
    "predict a.png --model m --precision int8 --provider cpu --threads 3 --views flip --find-faces"
    " --detector haar --min-confidence 0.7": {
        FINDER: call("haar", min_confidence=0.7),
        PREDICTOR: call("m", precision="int8", providers="cpu", threads=3, views="flip"),
    },
    "data faces src dst.npz": {
        FINDER: call(None, min_confidence=None),
        COLLECT: call(Path("src"), FINDER, smallest=36, seed=0, progress=ANY),
    },
    "data faces src dst.npz --detector haar --min-confidence 0.7 --smallest 20 --seed 5": {
        FINDER: call("haar", min_confidence=0.7),
        COLLECT: call(Path("src"), FINDER, smallest=20, seed=5, progress=ANY),
    },
    "score src --out out": {SCORE: call("src", Path("out"), Scoring(), progress=ANY)},
    "score src --out out --model m --precision int8 --provider cpu --views flip --threads 3 --find-faces"
    " --detector haar --min-confidence 0.7 --image-column face --label-column truth --engine ray"
    " --address auto --actors 2": {
        SCORE: call(
            "src",
            Path("out"),
            Scoring(
                model="m",
                precision="int8",
                provider="cpu",
                views="flip",
                threads=3,
                find_faces=True,
                detector="haar",
                min_confidence=0.7,
                image_column="face",
                label_column="truth",
                engine="ray",
                address="auto",
                actors=2,
            ),
            progress=ANY,
        )
    },
    "score src --out out --model m --precision int8 --provider cpu --views flip --threads 3 --find-faces"
    " --detector haar --min-confidence 0.7": {
        SCORING_PREDICTOR: call("m", precision="int8", providers="cpu", threads=3, views="flip"),
        FINDER: call("haar", min_confidence=0.7),
    },
    "score src --out out --engine ray": {
        SCORING_PREDICTOR: call(None, precision="auto", providers="auto", threads=1, views="single")
    },
}


@pytest.mark.parametrize("words", CASES)
def test_options_are_passed_on(monkeypatch, words):
    calls = CASES[words]
    recorders = {name: MagicMock(return_value=name) for name in calls}
    *_, last = recorders.values()
    last.side_effect = FertoolsError("the last recorder ends the command")
    for name, recorder in recorders.items():
        monkeypatch.setattr(name, recorder)
    result = CliRunner().invoke(main, words.split())
    assert result.stderr == f"Error: {last.side_effect}\n", result.output
    assert {name: recorder.call_args for name, recorder in recorders.items()} == calls
