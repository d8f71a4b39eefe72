import json
import os
import stat
from pathlib import Path

import pytest
from hostile import SPECIAL, make_special

from fertools.errors import WriteError
from fertools.files import check_place, replacing, replacing_folder, write_json, write_text


def write_half(path, error):
    path.write_text("half")
    raise error


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_replacing_writes_the_whole_file(tmp_path):
    path = tmp_path / "new" / "report.json"
    with replacing(path) as temporary:
        assert temporary.suffix == ".json"
        assert temporary.parent == path.parent
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert names(path.parent) == ["report.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_replacing_keeps_the_earlier_file_if_the_block_raises(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("earlier")
    with pytest.raises(error), replacing(path) as temporary:
        write_half(temporary, error)
    assert path.read_text() == "earlier"
    assert names(tmp_path) == ["a.txt"]


def test_replacing_writes_nothing_if_the_block_raises(tmp_path):
    with pytest.raises(ValueError), replacing(tmp_path / "a.txt"):  # noqa: PT011
        raise ValueError
    assert names(tmp_path) == []


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_modes_follow_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "file", "x")
        with replacing_folder(tmp_path / "folder"):
            pass
    finally:
        assert os.umask(before) == mask
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~mask


def test_replacing_does_not_take_the_place_of_a_folder(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(WriteError, match="Is a directory"), replacing(tmp_path / "a") as temporary:
        temporary.write_text("x")
    assert names(tmp_path) == ["a"]


def test_write_json(tmp_path):
    write_json(tmp_path / "a.json", {"a": ["ä", 1.5]})
    assert (tmp_path / "a.json").read_text().endswith("}\n")
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": ["ä", 1.5]}


def test_replacing_folder(tmp_path):
    path = tmp_path / "new" / "export"
    for content in ("one", "two"):
        with replacing_folder(path) as temporary:
            assert names(temporary) == []
            (temporary / content).write_text(content)
        assert names(path) == [content]
        assert names(path.parent) == ["export"]


def test_a_broken_pipe_is_not_the_files_fault(tmp_path):
    with pytest.raises(BrokenPipeError), replacing(tmp_path / "file") as temporary:
        write_half(temporary, BrokenPipeError())
    assert names(tmp_path) == []


def test_replacing_folder_leaves_a_link_to_it(tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "link").symlink_to("export")
    with replacing_folder(tmp_path / "link") as temporary:
        (temporary / "file").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "export" / "file").read_text() == "new"
    assert names(tmp_path) == ["export", "link"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_replacing_folder_keeps_the_earlier_one_if_the_block_raises(tmp_path, error):
    path = tmp_path / "export"
    path.mkdir()
    (path / "file").write_text("earlier")
    with pytest.raises(error), replacing_folder(path) as temporary:
        write_half(temporary / "file", error)
    assert (path / "file").read_text() == "earlier"
    assert names(tmp_path) == ["export"]


def test_replacing_folder_puts_the_earlier_one_back(tmp_path, monkeypatch):
    path = tmp_path / "export"
    path.mkdir()
    (path / "file").write_text("earlier")
    replace = os.replace

    def failing(source, target):
        if target == path and not str(source).endswith(".old"):
            raise OSError("no space")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(WriteError, match="no space"), replacing_folder(path) as temporary:
        (temporary / "file").write_text("new")
    assert (path / "file").read_text() == "earlier"
    assert names(tmp_path) == ["export"]


def test_replacing_folder_does_not_take_the_place_of_a_file(tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(WriteError, match="Not a directory"), replacing_folder(tmp_path / "a"):
        pytest.fail("the block must not run")
    assert (tmp_path / "a").read_text() == "x"
    assert names(tmp_path) == ["a"]


def test_replacing_leaves_a_link_to_the_file(tmp_path):
    (tmp_path / "target").write_text("earlier")
    (tmp_path / "link").symlink_to("target")
    write_text(tmp_path / "link", "new")
    assert os.readlink(tmp_path / "link") == "target"
    assert (tmp_path / "target").read_text() == "new"


@pytest.mark.parametrize("kind", SPECIAL)
def test_replacing_does_not_take_the_place_of_a_special_file(tmp_path, kind):
    path = make_special(kind, tmp_path / "special")
    before = os.stat(path)
    with pytest.raises(WriteError, match="not a regular file"):
        write_text(path, "new")
    assert os.stat(path).st_ino == before.st_ino


@pytest.mark.parametrize("path", [".", "..", "link"])
def test_replacing_folder_does_not_take_away_the_current_one(tmp_path, monkeypatch, path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    os.symlink(".", "link")
    with (
        pytest.raises(WriteError, match="is the current folder or holds it; name a folder inside it"),
        replacing_folder(Path(path)),
    ):
        raise AssertionError
    assert Path.cwd().samefile(".")


def test_a_mount_point_cannot_be_replaced(tmp_path, monkeypatch):
    """As the volume of a container is one."""
    monkeypatch.setattr("os.path.ismount", lambda path: path == tmp_path)
    with pytest.raises(WriteError, match="a file system is mounted there; name a folder inside it"):
        check_place(tmp_path)
    check_place(tmp_path / "inside")
