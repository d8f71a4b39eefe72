"""What the README and the guides say is so: generated blocks, commands, Python, links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image
from readme import DOCS, EXPORTED, README, ROOT, pages
from small_run import fitted_network, small_faces, small_network, write_run

from fertools.cli import main
from fertools.data import write
from fertools.faces.video import Writer
from fertools.models import NETWORKS, Network

#: In an order in which the commands of one use what those of another wrote.
GUIDES = [README, *(DOCS / f"{name}.md" for name in ("data", "training", "export", "deploy", "faces"))]
LARGEST_README = 8_000


def blocks(language: str, page: Path) -> list[str]:
    """The code blocks in ``language`` on ``page``."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )


def test_the_generated_blocks_are_current() -> None:
    for page, text in pages().items():
        assert page.read_text(encoding="utf-8") == text, f"{page.name}: run python tests/readme.py"


def test_the_readme_is_short() -> None:
    assert len(README.read_bytes()) <= LARGEST_README


def test_continuous_integration_runs_both_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    first, second = (block.strip() for block in blocks("sh", README)[:2])
    assert second in script.splitlines()
    assert first.rpartition("&& ")[2] == "fertools quickstart"  # tests/test_quickstart.py, which is slow
    assert "\npytest -m slow " in script
    assert blocks("sh", DOCS / "quickstart.md")[:2] == blocks("sh", README)[:2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README names: data, a finished run, a face and a photo."""
    skimage_data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    pytest.importorskip("cv2", reason="OpenCV is not installed (the extra faces)")
    path = tmp_path_factory.mktemp("readme")
    faces = small_faces()
    write(faces, path / "fer2013.csv")
    write_run(path / "runs" / "mine", fitted_network(faces), faces)
    Image.fromarray(faces.split("test").images[0]).save(path / "face.png")
    photo = skimage_data.astronaut()
    Image.fromarray(photo).save(path / "photo.jpg")
    writer = Writer(path / "video.mp4", (512, 512), 25)
    for index in range(3):
        writer.write(index / 25, photo)
    writer.close()
    (path / "exported").mkdir()
    for shipped in EXPORTED.iterdir():
        (path / "exported" / shipped.name).symlink_to(shipped)
    return path


@pytest.mark.usefixtures("runtime_files")
@pytest.mark.slow
def test_every_command_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, on small data; training is cut short, and the run that later commands want is at hand."""
    monkeypatch.chdir(folder)
    small = Network(name="small", text="", build=small_network, parameters=20_167, multiply_adds=0)
    monkeypatch.setitem(NETWORKS, "small", small)  # so that it may be a teacher
    lines = [
        line
        for page in GUIDES
        for block in blocks("sh", page)
        for line in block.splitlines()
        if line.startswith("fertools ")
    ]
    assert len(lines) >= 12
    lines = list(dict.fromkeys(lines))
    for line in lines:
        arguments = shlex.split(line)[1:]
        if arguments[0] in ("train", "distill"):
            arguments = [*arguments, "--epochs", "1"]
        if arguments[0] == "train":
            arguments[arguments.index("runs/mine")] = "runs/trained-here"
        if arguments[0] == "verify" and arguments[1] in ("exported/sequential", "exported/compact"):
            continue  # they know real faces: tests/test_shipped_model.py verifies them on those
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, f"{line}: {result.output}"


def test_the_python_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for page in GUIDES:
        names: dict[str, object] = {}  # one block may use what an earlier one of its page has made
        for block in blocks("python", page):
            exec(compile(block, page.name, "exec"), names)
    assert "CPUExecutionProvider" in capsys.readouterr().out


@pytest.mark.parametrize("page", [README, *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_no_accuracy_without_its_source(page: Path) -> None:
    """Accuracies are in generated tables alone."""
    outside = re.sub(
        r"<!-- begin (\w+) -->.*?<!-- end \1 -->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    assert not re.findall(r"\d\d\.\d+ ?%", outside)


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = re.findall(r"^(\w+)$", (DOCS / "index.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {page.stem for page in DOCS.glob("*.md")} == {*listed, "index"}
