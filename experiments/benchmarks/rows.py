"""A row of the benchmark: ours, its peer, and how near ours comes to what the hardware allows."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from experiments.benchmarks.timing import REPETITIONS, Probe, Times, in_turn


class Skipped(Exception):
    """A part cannot run here; says why."""


class Bar(NamedTuple):
    """What a field of a row should reach: at least, or with `at_most` at most, `bound`."""

    field: str
    bound: float
    at_most: bool = False

    def met(self, value: float) -> bool:
        """Whether `value` reaches it."""
        return value <= self.bound if self.at_most else value >= self.bound


class Limit(NamedTuple):
    """The least that a part has to do: `amount` FLOPs or bytes for each of its units."""

    probe: Probe
    amount: float


@dataclass(frozen=True)
class Row:
    """Ours and the peer on the same data in one run; seconds are medians, of one unit."""

    part: str
    size: str
    """The data, and what one unit is."""
    ours: str
    our_seconds: float
    our_range: tuple[float, float]
    peer: str | None = None
    peer_seconds: float | None = None
    peer_range: tuple[float, float] | None = None
    ratio: float | None = None
    """The peer's seconds over ours."""
    ratio_range: tuple[float, float] | None = None
    """Of the ratios round by round."""
    ratio_of_best: float | None = None
    """Of the smallest times: what a busy machine disturbs least."""
    share_of_limit: float | None = None
    limit: str | None = None
    work: str = ""
    """What makes the work of both equal, and in what they differ."""
    bars: tuple[Bar, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The row as plain values, each bar with whether it is met."""
        bars = [b._asdict() | {"met": b.met(getattr(self, b.field))} for b in self.bars]
        return asdict(self) | {"bars": bars}


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
    bars: tuple[Bar, ...] = (),
    repetitions: int = REPETITIONS,
) -> Row:
    """Time ours, every peer and the limit's probe in turn; the fastest peer is kept.

    Args:
        part: name of the part.
        size: see `Row`, as for the next.
        ours: what of ours runs.
        run: ours, `units` of them.
        peers: by name, as many units each.
        work: see `Row`.
        units: in one call; seconds are of one of them.
        check: called with the results of ours and of each peer; raises unless they agree.
        warm_up: call each one before, which is not timed. Without, the last timed results are
            checked.
        limit: what the work of one unit is compared with.
        bars: that the row is measured by.
        repetitions: how often each one is timed.
    """
    candidates = {"ours": run, **{f"peer {name}": call for name, call in peers.items()}}
    if warm_up:
        check(*(call() for call in candidates.values()))
    probes = {} if limit is None else {"limit": limit.probe.run}
    times, results = in_turn(candidates | probes, repetitions)
    if not warm_up:
        check(*(results[name] for name in candidates))
    mine = times["ours"].per(units)
    row = {"part": part, "size": size, "ours": ours, "work": work, "bars": bars}
    row |= {"our_seconds": mine.median, "our_range": mine.range}
    if peers:
        name = min(peers, key=lambda peer: times[f"peer {peer}"].median)
        row |= _beside(mine, name, times[f"peer {name}"].per(units))
    if limit is not None:
        row |= within(mine, limit, times["limit"])
    return Row(**row)


def _beside(mine: Times, name: str, theirs: Times) -> dict[str, Any]:
    """The fields about the peer."""
    return {
        "peer": name,
        "peer_seconds": theirs.median,
        "peer_range": theirs.range,
        "ratio": theirs.median / mine.median,
        "ratio_range": theirs.over(mine).range,
        "ratio_of_best": theirs.range[0] / mine.range[0],
    }


def within(mine: Times, limit: Limit, probed: Times) -> dict[str, Any]:
    """The fields about the limit, of which `probed` are the times."""
    probe = limit.probe
    rate = probe.amount / probed.median
    text = f"{limit.amount / 1e9:.3g} G{probe.unit} at {rate / 1e9:.3g} G{probe.unit}/s"
    return {
        "share_of_limit": limit.amount / rate / mine.median,
        "limit": f"{text} ({probe.name})",
    }
