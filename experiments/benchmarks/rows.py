"""A row of the benchmark: ours, its peer, and how close ours comes to the hardware's limit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from experiments.benchmarks.timing import REPETITIONS, Probe, Times, in_turn


class Skipped(Exception):
    """Raised where a part cannot run; the message says why."""


class Limit(NamedTuple):
    """The least work that a part can do: `amount` FLOPs or bytes for each of its units."""

    probe: Probe
    amount: float


@dataclass(frozen=True)
class Row:
    """Ours and the peer on the same data in one run; seconds are medians for one unit."""

    part: str
    size: str
    """The data, and what one unit of work is."""
    ours: str
    our_seconds: float
    our_range: tuple[float, float]
    peer: str | None = None
    peer_seconds: float | None = None
    peer_range: tuple[float, float] | None = None
    ratio: float | None = None
    """The peer's seconds divided by ours."""
    ratio_range: tuple[float, float] | None = None
    """Range of the ratios, round by round."""
    ratio_of_best: float | None = None
    """Ratio of the smallest times, which a busy machine disturbs least."""
    share_of_limit: float | None = None
    limit: str | None = None
    peak_gb: float | None = None
    """Peak memory beyond that of the data, in GB (1e9 bytes)."""
    work: str = ""
    """What makes the work of both equal, and how they differ."""


def compare(
    part: str,
    size: str,
    ours: str,
    run: Callable[[], Any],
    peers: Mapping[str, Callable[[], Any]],
    *,
    work: str,
    units: int = 1,
    check: Callable[..., None] = lambda *results: None,
    warm_up: bool = True,
    limit: Limit | None = None,
    repetitions: int = REPETITIONS,
) -> Row:
    """Time ours, every peer and the limit's probe in turn; keep the fastest peer.

    Args:
        part: name of the part.
        size: see `Row`.
        ours: name of the function of ours that is timed.
        run: ours; does `units` units of work.
        peers: the peers by name; each does as many units.
        work: see `Row`.
        units: units of work in one call; reported seconds are for one of them.
        check: called with the results of ours and of each peer; raises unless they agree.
        warm_up: call each candidate once before the timing starts, and check those results.
            Without, the results of the last round are checked.
        limit: what the work of one unit is compared with.
        repetitions: how often each candidate is timed.
    """
    candidates = {"ours": run, **{f"peer {name}": call for name, call in peers.items()}}
    if warm_up:
        check(*(call() for call in candidates.values()))
    probes = {} if limit is None else {"limit": limit.probe.run}
    times, results = in_turn(candidates | probes, repetitions)
    if not warm_up:
        check(*(results[name] for name in candidates))
    mine = times["ours"].per(units)
    row: dict[str, Any] = {"part": part, "size": size, "ours": ours, "work": work}
    row |= {"our_seconds": mine.median, "our_range": mine.range}
    if peers:
        name = min(peers, key=lambda peer: times[f"peer {peer}"].median)
        row |= _peer_fields(mine, name, times[f"peer {name}"].per(units))
    if limit is not None:
        row |= limit_fields(mine, limit, times["limit"])
    return Row(**row)


def _peer_fields(mine: Times, name: str, theirs: Times) -> dict[str, Any]:
    """Return the fields of a row that are about the peer."""
    return {
        "peer": name,
        "peer_seconds": theirs.median,
        "peer_range": theirs.range,
        "ratio": theirs.median / mine.median,
        "ratio_range": theirs.over(mine).range,
        "ratio_of_best": theirs.range[0] / mine.range[0],
    }


def limit_fields(mine: Times, limit: Limit, probed: Times) -> dict[str, Any]:
    """Return the fields of a row that are about the limit; `probed` are the times of its probe."""
    probe = limit.probe
    rate = probe.amount / probed.median
    text = f"{limit.amount / 1e9:.3g} G{probe.unit} at {rate / 1e9:.3g} G{probe.unit}/s"
    return {
        "share_of_limit": limit.amount / rate / mine.median,
        "limit": f"{text} ({probe.name})",
    }
