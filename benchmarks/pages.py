"""Write a table to a page of the documentation."""

import re
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
RESULTS = TOP / "docs" / "results"
IMAGES = TOP / "docs" / "img"


def replace_in_page(name: str, mark: str, text: str) -> None:
    """Replace the text between two marks ``<!-- mark -->`` of a page in docs/results, and print it."""
    page, line = RESULTS / name, f"<!-- {mark} -->"
    page.write_text(re.sub(f"{line}.*?{line}", lambda _: f"{line}\n{text}\n{line}", page.read_text(), flags=re.S))
    print(text)
