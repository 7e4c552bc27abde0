"""The Python in our documents, as the files that a reader would make of it."""

import re
from collections import defaultdict
from pathlib import Path

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# (\w+\.py)\n")


def files_in(document: Path) -> dict[str, str]:
    """Blocks joined in their order: to `app.py`, or to the file that a block's first line names as a comment."""
    files: dict[str, list[str]] = defaultdict(list)
    for block in _BLOCK.findall(document.read_text()):
        named = _FILE.match(block)
        files[named[1] if named else "app.py"].append(block)
    return {name: "\n\n".join(blocks) for name, blocks in files.items()}


def written(document: Path, folder: Path) -> Path:
    """The files of a document in a folder; the path of its app."""
    for name, text in files_in(document).items():
        (folder / name).write_text(text)
    return folder / "app.py"
