"""The documentation site: sphinx-build -W docs site."""

from typing import Any

from sphinx.application import Sphinx

from fertools import __version__
from fertools.training import DistillConfig, TrainConfig
from fertools.training.options import options_of

project = "fertools"
copyright = "the fertools authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
root_doc = "index"
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"fertools {release}"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# Pages link to files of the repository, which are not part of the site.
suppress_warnings = ["myst.xref_missing"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False


def setup(app: Sphinx) -> None:
    """Describe the fields of the configurations by the texts of their command-line options."""

    def describe(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
        if obj in (TrainConfig, DistillConfig):
            lines += [f":ivar {field}: {option.text}" for field, option in options_of(obj).items()]

    app.connect("autodoc-process-docstring", describe)
