"""A lock that is a file: against real processes, killed ones too."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cradl_jax.storage import locks

REPOSITORY = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
sys.path.insert(0, "cradl_jax/storage")  # alone, without JAX
import locks
locks.BEAT_S = 0.02
with locks.held(Path(sys.argv[1]), "its work"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""
ADD = """
import sys
from pathlib import Path
sys.path.insert(0, "cradl_jax/storage")
import locks
locks.POLL_S = 0.002
counter = Path(sys.argv[1] + ".txt")
for _ in range(30):
    with locks.held(Path(sys.argv[1]), "adding"):
        counter.write_text(str(int(counter.read_text()) + 1))
"""


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "locks" / "work.lock"


def test_processes_take_turns(path, tmp_path):
    path.parent.mkdir()
    Path(f"{path}.txt").write_text("0")
    processes = [start(ADD, path) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    for process in processes:
        process.communicate()
    assert Path(f"{path}.txt").read_text() == "90"
    assert not path.exists()


def test_the_second_waits_and_says_for_whom(path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "POLL_S", 0.01)
    process = start(HOLD, path, 0.3)
    assert process.stdout.readline() == "held\n"
    started = time.monotonic()
    with locks.held(path, "mine"):
        assert time.monotonic() - started > 0.2
        assert json.loads(path.read_text())["pid"] == os.getpid()
    found = capsys.readouterr().err
    assert found.count("waiting for ") == 1
    assert f":{process.pid}, which works on its work" in found
    process.communicate()
    assert not path.exists()


def test_the_lock_of_a_killed_process_is_taken_over_at_once(path):
    process = start(HOLD, path, 60)
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.communicate()
    assert path.exists()
    started = time.monotonic()
    with locks.held(path, "mine"):
        pass
    assert time.monotonic() - started < locks.POLL_S
    assert list(path.parent.iterdir()) == []


def test_the_lock_of_another_host_is_taken_over_when_it_is_not_touched(path, monkeypatch):
    monkeypatch.setattr(locks, "POLL_S", 0.01)
    monkeypatch.setattr(locks, "STALE_S", 0.5)
    path.parent.mkdir()
    owner = {"host": "far", "place": "far", "pid": 1, "what": "x", "started": 0, "token": "t"}
    path.write_text(json.dumps(owner))
    waiter = threading.Thread(target=locks._acquire, args=(path, {"token": "mine"}), daemon=True)
    waiter.start()
    for moment in (5, 3, 9, 1):  # it lives as long as it is touched, whatever its clock says
        os.utime(path, (moment, moment))
        time.sleep(0.15)
        assert waiter.is_alive()
    waiter.join(10)
    assert not waiter.is_alive() and json.loads(path.read_text()) == {"token": "mine"}


def test_a_lock_is_touched_and_who_lost_it_ends_and_leaves_the_other_its_own(path):
    process = start(HOLD, path, 60)
    assert process.stdout.readline() == "held\n"
    os.utime(path, (0, 0))
    time.sleep(0.5)
    assert time.time() - path.stat().st_mtime < 60
    other = {"host": "far", "place": "far", "pid": 1, "what": "x", "started": 0, "token": "t"}
    aside = path.with_name("other")
    aside.write_text(json.dumps(other))
    aside.replace(path)
    assert process.wait(30) == locks.LOST
    assert "taken over by far:1" in process.communicate()[1]
    assert json.loads(path.read_text()) == other


def test_a_fresh_lock_is_not_broken_in_place_of_a_stale_one(path):
    """Two waiters judged one lock stale; the first has made its own before the second breaks it."""
    path.parent.mkdir()
    stale, fresh = ({"host": "h", "place": "p", "pid": 1, "what": "x", "token": t} for t in "sf")
    path.write_text(json.dumps(fresh))
    locks._break(path, stale)
    assert json.loads(path.read_text()) == fresh
    locks._break(path, fresh)
    assert not path.exists()
