"""How Sphinx builds these pages: `make docs`, then open build/docs/index.html."""

import sys
from importlib import metadata
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

import recipe_table  # noqa: E402

project = "grpo_gym"
author = "the grpo_gym authors"
release = metadata.version("grpo_gym")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["generated/README.md"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # links to files of the repository, which the pages do not contain

html_theme = "furo"
html_title = f"grpo_gym {release}"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

(DOCS / "generated").mkdir(exist_ok=True)
(DOCS / "generated" / "recipes.md").write_text(recipe_table.page(), encoding="utf-8")
