"""The benchmark's document: as JSON's values, and as Markdown."""

import platform
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from experiments.benchmarks.rows import Bar, Row
from experiments.benchmarks.timing import cores

PACKAGES = ("jax", "numpy", "scipy", "scikit-learn")
PEERS = ("torch", "FrEIA", "monai", "batchgenerators")
"""The extra `bench` of pyproject.toml: the names of its modules and of its packages."""
QUIET = 0.5  # load average of a machine that does nothing else
BUSY = (
    "**The machine had other work (load {:.1f}): whoever waits for all threads, as PyTorch does at "
    "every layer, looks slower than it is.**"
)


def document(rows: Sequence[Row], skipped: dict[str, str], load: float) -> dict[str, Any]:
    """Rows, why parts were skipped, and where and with what it was measured.

    `load` is the machine's load average before the first part.
    """
    options = [option for option in sys.argv[1:] if not option.startswith("--out")]
    return {
        "command": " ".join(["python -m experiments.benchmark", *options]),
        "device": device(),
        "load": load,
        "versions": versions(),
        "rows": [row.as_json() for row in rows],
        "skipped": skipped,
    }


def on_cpu() -> bool:
    """Whether JAX computes on the processor."""
    return jax.default_backend() == "cpu"


def device() -> str:
    """The accelerator, or the processor and its cores."""
    if not on_cpu():
        return jax.devices()[0].device_kind
    path = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", path.read_text()) if path.exists() else None
    count = f"{cores()} core{'s' * (cores() > 1)}"
    return f"{count}, {found[1] if found else platform.processor()}"


def versions() -> dict[str, str]:
    """Of Python and of the packages that are installed."""
    installed = {name: _version(name) for name in (*PACKAGES, *PEERS)}
    return {"python": platform.python_version()} | {k: v for k, v in installed.items() if v}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def markdown(rows: Sequence[Row], skipped: dict[str, str], about: dict[str, Any]) -> str:
    """The rows as a table, and below it what makes the work equal."""
    packages = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"`{about['command']}` on {about['device']}; {packages}. "
        "Medians of rounds in turn, with the range over the rounds; a ratio is the peer's time "
        "over ours, last that of the smallest times.",
        *[BUSY.format(about["load"])] * (on_cpu() and about["load"] > QUIET),
        "",
        "| part | size | ours | peer | ratio | bar | share of limit |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: |",
        *(f"| {' | '.join(_cells(row))} |" for row in rows),
        "",
        *dict.fromkeys(f"- {row.part}: {row.work}" for row in rows),
        *(f"- {part} was skipped: {why}" for part, why in skipped.items()),
    ]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    """The cells of a row."""
    peer = ratio = share = ""
    if row.peer is not None:
        peer = f"{row.peer}: {_time(row.peer_seconds, row.peer_range)}"
        low, high = row.ratio_range
        ratio = f"**{row.ratio:.3g}** ({low:.3g} to {high:.3g}; {row.ratio_of_best:.3g})"
    if row.share_of_limit is not None:
        share = f"{row.share_of_limit:.2g} of {row.limit}"
    bars = "; ".join(_bar(row, bar) for bar in row.bars)
    return [row.part, row.size, _time(row.our_seconds, row.our_range), peer, ratio, bars, share]


def _bar(row: Row, bar: Bar) -> str:
    met = "met" if bar.met(getattr(row, bar.field)) else "missed"
    name = {"ratio": "ratio", "share_of_limit": "share", "our_seconds": "seconds"}[bar.field]
    return f"{name} {'≤' if bar.at_most else '≥'} {bar.bound:g}: {met}"


def _time(seconds: float, spread: tuple[float, float]) -> str:
    """A time in the unit that suits it."""
    scales = {"h": 3600.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6}
    unit = next((unit for unit, scale in scales.items() if seconds >= scale), "µs")
    middle, low, high = (f"{value / scales[unit]:.3g}" for value in (seconds, *spread))
    return f"{middle} {unit}" + (f" ({low} to {high})" if low != high else "")
