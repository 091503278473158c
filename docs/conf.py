"""Configuration of the documentation site: `make docs`.

The source folder is the top of the repository, so that README.md, CHANGELOG.md and runs/README.md are pages of the site
too, and a relative link is right both here and on GitHub.
"""

from lstmfit import __version__

project = "lstmfit"
author = "the lstmfit authors"
copyright = "the lstmfit authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "numpydoc"]
root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "runs/README.md", "docs/**"]
exclude_patterns = [".*", "build", "tests", "benchmarks", "chains"]
nitpicky = False

# Anchors of headings as on GitHub.
myst_heading_anchors = 4

autodoc_member_order = "bysource"
# Types are in the docstrings.
autodoc_typehints = "none"
# The other packages of the pages are requirements of lstmfit.
autodoc_mock_imports = ["bilby"]
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "furo"
html_title = f"lstmfit {release}"
html_copy_source = False
# The root of the site is docs/index.html; a page at the top leads there.
html_additional_pages = {"index": "to_docs.html"}
templates_path = ["site"]
