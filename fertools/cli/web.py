"""``fertools web``."""

from __future__ import annotations

from pathlib import Path

import click

from fertools.cli.common import emit, json_option, precision_option, talk
from fertools.cli.export import serve_hint, web_options
from fertools.provenance import origins
from fertools.runtime.location import find_model
from fertools.web import WebConfig, check_replaceable, gather, write_page

#: The default model of a page: the smaller one, since every visitor downloads it.
DEFAULT = "compact"


@click.command()
@click.argument("model", default=DEFAULT)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("web"), show_default=True, help="Folder to write."
)
@precision_option
@web_options
@json_option
def command(model: str, out: Path, precision: str, web: WebConfig, as_json: bool) -> None:
    """Write a page that runs a model in the browser.

    MODEL is an export folder, an .onnx file, or a model that ships: compact (the default) or sequential. The
    page needs a static web server and nothing else; pictures never leave the browser.
    """
    path, wanted = find_model(model, precision)
    check_replaceable(out)
    parts = gather(web, say=lambda message: talk(f"{message[0].upper()}{message[1:]} ..."))
    page = write_page(parts, path, out, wanted or "auto", other_data=origins(path)[1:])
    if as_json:
        emit({"folder": str(out), "model": page.model, "bytes": {"ours": page.ours, "others": page.others}})
    serve_hint(out, page)
