import json

from click.testing import CliRunner
from told_run import told_run, told_seeds

from fertools.cli import main
from fertools.training.comparison import compare


def run(*arguments):
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


def test_a_table(tmp_path):
    told_run(tmp_path / "a", [0.2, 0.4])
    told_seeds(tmp_path / "b", [0.3, 0.5], [0.1, 0.6])
    result = run(tmp_path / "a", tmp_path / "b")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == compare([tmp_path / "a", tmp_path / "b"]).to_text() + "\n"
    assert result.stderr == f"Next: fertools export {tmp_path / 'b' / 'seed-1'} --quantize --out exported/b\n"


def test_json_and_picture(tmp_path):
    told_run(tmp_path / "a b", [0.2, 0.4])
    plot = tmp_path / "pictures" / "compare.png"
    result = run(tmp_path / "a b", "--plot", plot, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == compare([tmp_path / "a b"]).to_dict()
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert result.stderr.splitlines() == [
        f"The picture is in {plot}.",
        f"Next: fertools export '{tmp_path / 'a b'}' --quantize --out 'exported/a b'",
    ]


def test_without_a_finished_run_nothing_is_next(tmp_path):
    told_run(tmp_path / "a", [0.2], finished=False)
    result = run(tmp_path / "a")
    assert (result.exit_code, result.stderr) == (0, "")


def test_errors_are_one_line(tmp_path):
    told_run(tmp_path / "a", [0.2])
    (tmp_path / "file").touch()
    for arguments, message in (
        ([tmp_path / "nothing"], f"Error: {tmp_path / 'nothing'}: not a run folder"),
        ([tmp_path / "a", "--plot", tmp_path / "file" / "x.png"], "cannot be written"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    assert run().exit_code == 2
