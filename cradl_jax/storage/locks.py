"""A lock that is a file: one process works on a folder, others wait, on this and on other hosts.

It is made by O_EXCL, which network file systems keep to as well, and touched by a thread while its
owner lives. It is taken over if its owner is gone: at once if that was a process of this host, else
when it was not touched for five minutes. So it outlives neither SIGKILL nor a machine that stops.

filelock's `SoftFileLease` (4.3.1) has the same design, but on Linux it takes over a stale lock by
swapping two names (RENAME_EXCHANGE) or not at all. NFS and Lustre refuse that, so that there the
lock of a killed command would stay for ever; a plain rename, as here, works on them.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

BEAT_S = 30.0
STALE_S = 300.0
POLL_S = 1.0
LOST = 75  # EX_TEMPFAIL of sysexits.h


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold a lock while the block runs; wait for whoever holds it before.

    Who it is, and on what they work, is printed once. Folders are made. Locks are not reentrant.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = {**_here(), "started": time.time(), "what": what, "token": uuid4().hex}
    _acquire(path, mine)
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, mine, done), daemon=True)
    beat.start()
    try:
        yield
    finally:
        done.set()
        beat.join()
        if _owner(path) == mine:
            path.unlink(missing_ok=True)


def _here() -> dict[str, str | int]:
    """Return this process, and the machine and process namespace in which its number counts."""
    place = socket.gethostname()
    with suppress(OSError):  # Linux; containers may share a name, but not both of these
        place += Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        place += str(Path("/proc/self/ns/pid").readlink())
    return {"host": socket.gethostname(), "pid": os.getpid(), "place": place}


def _acquire(path: Path, mine: dict) -> None:
    """Make the lock's file, after waiting for others."""
    told, seen, since = False, None, time.monotonic()
    while not _create(path, mine):
        owner = _owner(path)
        if (found := (owner, _touched(path))) != seen:
            seen, since = found, time.monotonic()
        if _is_gone(owner) or time.monotonic() - since > STALE_S:
            _break(path, owner)
            continue
        if not told and owner is not None:
            told = True
            print(
                f"waiting for {owner['host']}:{owner['pid']}, which works on {owner['what']}",
                file=sys.stderr,
                flush=True,
            )
        time.sleep(POLL_S)


def _create(path: Path, mine: dict) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump(mine, file)
    except FileExistsError:
        return False
    return True


def _owner(path: Path) -> dict | None:
    """Return what the lock's file says; None if it is gone or only just being written."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(owner, dict) and owner.keys() >= {"host", "pid", "place", "what", "token"}
    return owner if whole else None


def _touched(path: Path) -> int | None:
    """Return when the lock was last touched, by whatever clock: only a change counts."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _is_gone(owner: dict | None) -> bool:
    """Return whether the owner was a process of this machine and is no more."""
    if owner is None or owner["place"] != _here()["place"] or os.name != "posix":
        return False
    try:
        os.kill(owner["pid"], 0)
    except OSError as fault:
        return isinstance(fault, ProcessLookupError)
    return False


def _break(path: Path, stale: dict | None) -> None:
    """Remove a lock whose owner is gone, unless another process was faster.

    Renaming takes it away from all others at once. A lock that someone made in between is put back.
    """
    if _owner(path) != stale:
        return
    aside = path.with_name(f".partial_{uuid4().hex[:8]}_{path.name}")
    with suppress(FileNotFoundError):
        path.rename(aside)
        if _owner(aside) != stale:
            with suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink(missing_ok=True)


def _beat(path: Path, mine: dict, done: threading.Event) -> None:
    """Touch the lock until the work is done; end this process if another has taken it over."""
    while not done.wait(BEAT_S):
        try:
            owner = _owner(path)
            if owner is not None and owner != mine:
                print(
                    f"{path}: taken over by {owner['host']}:{owner['pid']}, since this process did "
                    f"not answer for {STALE_S:g} s; it ends here, the same command continues",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(LOST)  # at once, as if killed: the other one works on the same files
            os.utime(path)
        except OSError:  # the file system is away for a while; others wait for STALE_S
            continue
