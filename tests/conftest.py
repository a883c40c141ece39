"""Four virtual CPU devices for every test, set before JAX starts, and one compilation cache.

Tests, their workers and the commands that they start compile the same functions again and again.
They have the same flags of XLA, those of the commands: with others the last bits differ.
"""

import atexit
import os
import shutil
import tempfile

import pytest

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ["JAX_PLATFORMS"] = "cpu"
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="cradl-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import experiments  # noqa: F401, completes the flags


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The working directory of a tiny study, for one file of tests."""
    from tests.helpers.tiny_study import make  # imports JAX

    return make(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def folder(study):
    """The run of that study."""
    return study / "seed0" / "cradl"
