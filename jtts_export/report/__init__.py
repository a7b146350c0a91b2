"""A release's report, from the content of its validation.json: a page, a summary and test results.

    html, markdown, junit    of one release; write() puts all three into a folder
    compare                  the same three of two releases, and a table for the terminal

Parts that a validation does not have are left out. What is drawn or played is imported when it is asked for.
"""

from .compare import Comparison, compare
from .page import html
from .results import junit
from .summary import markdown
from .write import write

__all__ = ["Comparison", "compare", "html", "junit", "markdown", "write"]
