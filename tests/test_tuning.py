import experiments

ZEN4 = "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\n"


def test_other_processors_are_left_alone():
    assert experiments.tuned("vendor_id\t: GenuineIntel\ncpu family\t: 6\n", {}) == {}


def test_flags_of_the_user_stay():
    tuned = experiments.tuned(
        ZEN4, {"XLA_FLAGS": "--xla_dump_to=x", "NPY_DISABLE_CPU_FEATURES": ""}
    )
    assert tuned["NPY_DISABLE_CPU_FEATURES"] == ""
    assert tuned["XLA_FLAGS"].split() == ["--xla_dump_to=x", "--xla_cpu_prefer_vector_width=512"]


def test_width_of_the_user_wins_and_is_said_once():
    narrow = {"XLA_FLAGS": "--xla_cpu_prefer_vector_width=256"}
    assert experiments.tuned(ZEN4, narrow)["XLA_FLAGS"] == narrow["XLA_FLAGS"]
    once = experiments.tuned(ZEN4, {})
    assert experiments.tuned(ZEN4, once) == once
