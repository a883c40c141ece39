import pytest

import experiments

ZEN4 = "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\n"
INTEL = "vendor_id\t: GenuineIntel\ncpu family\t: 6\n"


def test_other_processors_are_told_of_loops_alone():
    assert experiments.tuned(INTEL, {}, accelerated=False) == {"XLA_FLAGS": experiments.LOOPS}


def test_kernels_of_an_accelerator_are_left_alone():
    assert experiments.tuned(INTEL, {}, accelerated=True) == {}
    assert experiments.tuned(ZEN4, {}, accelerated=True)["XLA_FLAGS"] == experiments.WIDTH


def test_flags_of_the_user_stay():
    given = {"XLA_FLAGS": "--xla_dump_to='a  b'", "NPY_DISABLE_CPU_FEATURES": ""}
    tuned = experiments.tuned(ZEN4, given, accelerated=False)
    assert tuned["NPY_DISABLE_CPU_FEATURES"] == ""
    assert tuned["XLA_FLAGS"] == f"--xla_dump_to='a  b' {experiments.WIDTH} {experiments.LOOPS}"


@pytest.mark.parametrize(
    "flags",
    [
        "--xla_cpu_prefer_vector_width=256 --xla_backend_extra_options=-x",
        "flags.txt",  # XLA reads a file that does not look like a flag
    ],
)
def test_values_of_the_user_win(flags):
    tuned = experiments.tuned(ZEN4, {"XLA_FLAGS": flags}, accelerated=False)
    assert tuned["XLA_FLAGS"] == flags


def test_all_is_said_once():
    once = experiments.tuned(ZEN4, {}, accelerated=False)
    assert experiments.tuned(ZEN4, once, accelerated=False) == once
