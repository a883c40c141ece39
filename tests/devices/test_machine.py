import os
import re
import subprocess
import sys

import pytest

from cradl_jax.devices import machine


def test_a_cpu_is_named_and_a_gpu_that_is_left_unused(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "NVIDIA", tmp_path / "version")
    assert re.fullmatch(r"\d+ CPU devices?", machine.devices_in_words())
    (tmp_path / "version").touch()
    assert "NVIDIA GPU, which JAX does not see" in machine.devices_in_words()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("JAX_ENABLE_X64", "1", "JAX_ENABLE_X64: expected JAX to compute in 32 bits.*unset it"),
        ("JAX_PLATFORMS", "cuda", "JAX_PLATFORMS: expected a platform .*found 'cuda'.*unset it"),
    ],
)
def test_what_the_machine_lacks_is_not_told_as_damage(folder, name, value, message):
    """The same run is sound without the variable."""
    scan = folder.parents[1] / "data" / "lesion-test1.nii.gz"
    for command in ("verify", "predict"):
        arguments = [f"--run={folder}", *([f"--scan={scan}"] if command == "predict" else [])]
        result = subprocess.run(
            [sys.executable, "-m", f"experiments.{command}", *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, name: value},
            check=False,
        )
        assert result.returncode == 2 and re.search(message, result.stderr), result.stderr
        assert not re.search("damage|remove|again|Traceback", result.stderr)
