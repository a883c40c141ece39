"""The results of the benchmark as a JSON document and as a Markdown table."""

import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from experiments.benchmarks.rows import Row
from experiments.benchmarks.timing import cores

PACKAGES = ("jax", "numpy", "scipy", "scikit-learn")
PEERS = ("torch", "FrEIA", "monai", "batchgenerators")
"""The extra `bench` of pyproject.toml, by names that are those of module and package alike."""
QUIET = 0.5  # load average of a machine without other work
BUSY = (
    "**The machine had other work (load {:.1f}): code that waits for all threads, as PyTorch does "
    "at every layer, looks slower than it is.**"
)


def document(rows: Sequence[Row], skipped: dict[str, str], load: float) -> dict[str, Any]:
    """Assemble the JSON document: the rows, the skipped parts, the command, device and versions.

    `load` is the load average of the machine before the first part.
    """
    options = [option for option in sys.argv[1:] if not option.startswith("--out")]
    return {
        "command": " ".join(["python -m experiments.benchmark", *options]),
        "device": device(),
        "load": load,
        "versions": versions(),
        "rows": [asdict(row) for row in rows],
        "skipped": skipped,
    }


def on_cpu() -> bool:
    """Return whether JAX computes on the CPU."""
    return jax.default_backend() == "cpu"


def device() -> str:
    """Name the accelerator, or the CPU and its cores."""
    if not on_cpu():
        return jax.devices()[0].device_kind
    path = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.*)", path.read_text()) if path.exists() else None
    count = f"{cores()} core{'s' * (cores() > 1)}"
    return f"{count}, {match[1] if match else platform.processor()}"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that are installed."""
    installed = {name: _version(name) for name in (*PACKAGES, *PEERS)}
    return {"python": platform.python_version()} | {k: v for k, v in installed.items() if v}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def markdown(rows: Sequence[Row], skipped: dict[str, str], about: dict[str, Any]) -> str:
    """Return the rows as a Markdown table, and below it what makes the work equal."""
    packages = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"`{about['command']}` on {about['device']}; {packages}. "
        "Medians of rounds in turn, with the range over the rounds. A ratio is the peer's time "
        "divided by ours; the last one in brackets is that of the smallest times.",
        *[BUSY.format(about["load"])] * (on_cpu() and about["load"] > QUIET),
        "",
        "| part | size | ours | peer | ratio | share of limit |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        *(f"| {' | '.join(_cells(row))} |" for row in rows),
        "",
        *dict.fromkeys(f"- {row.part}: {row.work}" for row in rows),
        *(f"- {part} was skipped: {why}" for part, why in skipped.items()),
    ]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    """Return the cells of a row."""
    peer = ratio = share = ""
    if row.peer_seconds and row.peer_range and row.ratio_range:
        peer = f"{row.peer}: {_time(row.peer_seconds, row.peer_range)}"
        low, high = row.ratio_range
        ratio = f"**{row.ratio:.3g}** ({low:.3g} to {high:.3g}; {row.ratio_of_best:.3g})"
    if row.share_of_limit is not None:
        share = f"{row.share_of_limit:.2g} of {row.limit}"
    if row.peak_gb is not None:
        share = f"{row.peak_gb:.2g} GB of memory"
    return [row.part, row.size, _time(row.our_seconds, row.our_range), peer, ratio, share]


def _time(seconds: float, spread: tuple[float, float]) -> str:
    """Format a time and its range in a suitable unit."""
    scales = {"h": 3600.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6}
    unit = next((unit for unit, scale in scales.items() if seconds >= scale), "µs")
    middle, low, high = (f"{value / scales[unit]:.3g}" for value in (seconds, *spread))
    return f"{middle} {unit}" + (f" ({low} to {high})" if low != high else "")
