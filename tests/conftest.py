"""Four virtual CPU devices for every test, set before JAX starts, and what tests share.

That is one compilation cache and one tiny study: tests, their workers and the commands that they
start would compile the same functions, and build the same study, again and again. Compilation is
most of the suite's time, so tests, and the commands that they start, compile without most
optimizations. Tests marked `optimized` compile as the commands do: those whose computation takes
longer than its compilation, or whose outcome depends on the last bits.
"""

import atexit
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="cradl-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import experiments  # noqa: F401, completes the flags

QUICKLY = "JAX_DISABLE_MOST_OPTIMIZATIONS"
LONGEST = [
    "test_end_to_end",
    "test_interruption",
    "test_phantom",
    "test_loop",
    "test_benchmark",
    "test_em",
    "test_gmm",
    "test_anomalies",
    "test_synthesize",
    "test_hostile",
    "test_colab",
    "test_predict",
    "test_verification",
    "test_processes",
    "test_twice",
    "test_bootstrap",
    "test_convolutions",
]


def pytest_collection_modifyitems(items) -> None:
    """Start with the files that take longest: no worker is left with one at the end."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="module", autouse=True)
def compiler(request) -> Iterator[None]:
    """Compile quickly, or as the commands do where a file of tests is marked `optimized`.

    What a file compiled is forgotten after it: in the end a worker would hold gigabytes.
    """
    import jax

    quickly = request.node.get_closest_marker("optimized") is None
    os.environ[QUICKLY] = str(int(quickly))  # for the commands that tests start
    jax.config.update(QUICKLY.lower(), quickly)
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def study(compiler, tmp_path_factory) -> Path:
    """Return the working directory of a tiny study: a copy for one file of tests.

    All workers copy the same one; the first of them to need it builds it.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    with (root / "tiny-study.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "tiny-study").exists():
            from tests.helpers.tiny_study import make  # imports JAX

            make(root / "tiny-study.partial").rename(root / "tiny-study")
    return shutil.copytree(root / "tiny-study", tmp_path_factory.mktemp("study") / "tiny")


@pytest.fixture(scope="module")
def folder(study) -> Path:
    """Return the run of that study."""
    return study / "seed0" / "cradl"
