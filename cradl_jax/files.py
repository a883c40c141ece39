"""Write whole files or none: aside first, then renamed, so that a reader never sees half of one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends without an error.

    It has the same ending, and folders are made. What was at `path` stays until then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"partial_{path.name}")
    try:
        yield aside
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8 with the line ends that it has."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, content: dict | list) -> None:
    """Write plain values as JSON."""
    write_text(path, json.dumps(content, indent=1) + "\n")
