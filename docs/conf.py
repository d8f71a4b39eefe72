"""The documentation site: sphinx-build -W docs site."""

from fertools import __version__

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
