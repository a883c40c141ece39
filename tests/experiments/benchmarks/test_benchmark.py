"""The benchmark's arithmetic by hand, and its parts at sizes that take no time."""

import json
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from cradl_jax.errors import InputError
from cradl_jax.models.encoder import Encoder
from cradl_jax.models.vae import Decoder
from experiments import benchmark
from experiments.benchmarks import (
    accelerator,
    densities,
    flops,
    localization,
    parts,
    table,
    timing,
    training,
    volumes,
    voxels,
)
from experiments.benchmarks.rows import Limit, Skipped, compare, limit_fields
from experiments.benchmarks.timing import Probe, Times, in_turn, reports

TINY = training.Network(8, 2, 4, (4, 2), 4)


@pytest.fixture(autouse=True)
def small_probes(monkeypatch):
    """The same probes, over in a moment."""
    monkeypatch.setattr(timing, "PRODUCT", {"cpu": 64})
    monkeypatch.setattr(timing, "ELEMENTS", {"cpu": 1 << 10})
    monkeypatch.setattr(timing, "PAUSE", 0.0)


def test_medians_ranges_and_ratios_by_hand():
    mine, theirs = Times((4.0, 1.0, 2.0)), Times((6.0, 4.0, 8.0))
    assert (mine.median, mine.range) == (2.0, (1.0, 4.0))
    assert mine.per(2) == Times((2.0, 0.5, 1.0))
    assert theirs.over(mine) == Times((1.5, 4.0, 4.0))


def test_candidates_take_turns():
    calls = []
    candidates = {name: lambda name=name: calls.append(name) or len(calls) for name in "abc"}
    times, results = in_turn(candidates, 3)
    assert calls == list("abcabcabc")
    assert results == {"a": 7, "b": 8, "c": 9}
    assert [len(times[name].seconds) for name in "abc"] == [3, 3, 3]


def test_time_includes_waiting_for_what_is_computed_asynchronously():
    def slow():
        return jax.pure_callback(lambda: time.sleep(0.05) or np.float32(1), jnp.float32(0))

    times, _ = in_turn({"slow": jax.jit(slow)}, 2)
    assert min(times["slow"].seconds) >= 0.05


def test_the_fastest_peer_is_kept_and_seconds_are_of_a_unit():
    row = compare(
        *("part", "size", "ours", lambda: time.sleep(0.02)),
        {"slow": lambda: time.sleep(0.2), "fast": lambda: time.sleep(0.1)},
        work="sleeping",
        units=4,
        repetitions=3,
    )
    assert row.peer == "fast"
    assert 0.005 <= row.our_seconds < 0.025 <= row.peer_seconds < 0.05
    assert row.ratio == row.peer_seconds / row.our_seconds
    assert row.ratio_range[0] <= row.ratio_range[1]
    assert row.ratio_of_best == row.peer_range[0] / row.our_range[0]
    assert row.share_of_limit is None


@pytest.mark.parametrize("warm_up", [True, False])
def test_results_that_differ_are_refused(warm_up):
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        compare(
            *("part", "size", "ours", lambda: np.arange(3)),
            {"peer": lambda: np.array([0, 1, 3])},
            work="",
            check=np.testing.assert_array_equal,
            warm_up=warm_up,
            repetitions=1,
        )


def test_share_of_limit_by_hand():
    """12 FLOP in 3 s are 4 FLOP/s, at which 2 FLOP take half a second: a quarter of 2 s."""
    limit = Limit(Probe("products", "FLOP", 12.0, lambda: None), 2.0)
    fields = limit_fields(Times((2.0,)), limit, Times((1.0, 3.0, 9.0)))
    assert fields["share_of_limit"] == 0.25
    assert "2e-09 GFLOP at 4e-09 GFLOP/s (products)" in fields["limit"]


def test_reports_wait_for_their_turn():
    done = []

    def run(report):
        for number in range(3):
            done.append(number)
            report(10 * number)

    found = reports(run)
    assert (next(found), done) == (0, [0])
    assert (next(found), done) == (10, [0, 1])


def test_flops_of_layers_by_hand():
    # An 8x8 slice becomes 4x4x3, each value from 4x4x1; then 5 values, each from 4x4x3.
    assert flops.encoder(8, 3, 5) == [16 * 3 * 16, 5 * 16 * 3]
    assert flops.encoder(16, 3, 5)[1] == 4 * 4 * 6 * 16 * 3
    assert flops.encoder(12, 3, 5) == [36 * 3 * 16, 5 * 36 * 3]
    assert flops.decoder(8, 3, 5) == [5 * 16 * 3, 16 * 3 * 16]
    # Two levels there; back 12 channels of 4x4 become 6 of 8x8, and with 6 more 1 of 16x16.
    there = flops.encoder(16, 6, 1)[:-1]
    assert flops.unet(16, 6) == [*there, 4 * 4 * 16 * 12 * 6, 8 * 8 * 16 * 12 * 1]
    assert flops.dense([5, 7, 2]) == [35, 14]
    assert flops.training([10, 1]) == 2 * (2 * 10 + 3 * 1)
    assert flops.input_gradient([10, 1]) == 2 * 2 * 11
    paper = training.training_flops("cradl", training.PAPER)
    assert paper == pytest.approx(6.6e9, rel=0.01)  # the figure in configs/README.md


@pytest.mark.parametrize("network", ["encoder", "decoder"])
def test_flops_against_the_compiler(network):
    """On a CPU 25 products stand for 64, not those of one channel; the compiler counts sums too."""
    if network == "encoder":
        model, shape, layers = Encoder(64, 32), (2, 64, 64), flops.encoder(64, 64, 32)
        thin, *strided, dense = layers
    else:
        model, shape, layers = Decoder(64, 64), (2, 32), flops.decoder(64, 64, 32)
        dense, *strided, thin = layers
    x = jnp.zeros(shape)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    analysis = jax.jit(model.apply).lower(variables, x).compile().cost_analysis()
    products = 25 / 64 * sum(strided) + thin + dense
    assert 1.0 <= analysis["flops"] / (2 * len(x) * products) < 1.4


def test_streamed_voxels_are_the_same_each_time_and_have_the_prevalence():
    first, again = (list(voxels.stream(voxels.CHUNK + 5)) for _ in range(2))
    assert [len(scores) for scores, _ in first] == [voxels.CHUNK, 5]
    np.testing.assert_array_equal(first[0], again[0])
    assert first[0][1].mean() == pytest.approx(voxels.PREVALENCE, rel=0.02)


def test_memory_above_the_stream_is_that_of_the_positives_and_a_buffer():
    row = voxels.memory_above_stream(300_000)
    assert 0 < row.peak_gb < 0.3


def test_volumes_are_centered():
    volume = np.arange(2 * 5).reshape(2, 5, 1)
    found = volumes.centered(volume, (4, 3, 1))
    np.testing.assert_array_equal(found[1:3], volume[:, 1:4])
    assert found.shape == (4, 3, 1) and not found[[0, 3]].any()


def cheap_parts():
    return {
        "median": (partial(localization.median, 4, 16),),
        "em": (partial(densities.em_iteration, 90, 6, 2, repetitions=2),),
        "metrics": (partial(voxels.metric_values, 5_000, repetitions=2),),
        "simclr": (partial(training.simclr, TINY),),
        "memory": (unavailable,),
    }


def unavailable():
    raise Skipped("not on this system")


def test_the_command_writes_rows_and_names_what_it_skips(tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("experiments.benchmarks.peers")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    monkeypatch.setattr(parts, "ON_CPU", cheap_parts())
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(out=str(tmp_path / "out.json"), parts=None):
        benchmark.main()
    document = json.loads((tmp_path / "out.json").read_text())
    assert [row["part"] for row in document["rows"]] == ["median", "em", "metrics"]
    for row in document["rows"]:
        assert row["ratio"] == row["peer_seconds"] / row["our_seconds"]
        assert row["our_range"][0] <= row["our_seconds"] <= row["our_range"][1]
        assert row["share_of_limit"] > 0
    assert "torch is not installed" in document["skipped"]["simclr"]
    assert document["skipped"]["memory"] == "not on this system"
    printed = capsys.readouterr().out
    assert printed.count("\n| ") == 5  # a head, its rule, three rows
    assert "scipy.ndimage.median_filter" in printed and "simclr was skipped: torch" in printed


def test_an_import_that_fails_for_another_reason_is_no_missing_peer():
    def broken():
        raise ModuleNotFoundError("no module", name="cradl_jax.absent")

    with pytest.raises(ModuleNotFoundError):
        parts.run({"part": (broken,)})


def test_parts_are_chosen_by_name():
    assert list(parts.choose(parts.ON_CPU, ["em", "median"])) == ["em", "median"]
    assert parts.choose(parts.ON_CPU, None) == parts.ON_CPU
    with pytest.raises(InputError, match=r"expected some of pretext, .*, found 'simclr'"):
        parts.choose(parts.ON_ACCELERATOR, ["simclr"])


def test_an_unknown_part_is_refused_and_the_parts_are_listed(capsys):
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(parts=["medain"]), pytest.raises(InputError, match="found 'medain'"):
        benchmark.main()
    with flagsaver.flagsaver(parts=["list"]):
        benchmark.main()
    assert capsys.readouterr().out.split() == list(parts.ON_CPU)


def test_a_busy_machine_is_named():
    for load, named in ((0.1, False), (3.0, True)):
        text = table.markdown([], {}, table.document([], {}, load))
        assert ("other work (load 3.0)" in text) is named


def test_times_are_shown_in_units_that_suit_them():
    assert table._time(0.0123, (0.01, 0.02)) == "12.3 ms (10 to 20)"
    assert table._time(7200.0, (7200.0, 7200.0)) == "2 h"


def test_pretext_training_is_extrapolated():
    row = accelerator.pretext("vae", TINY, slices=40, epochs=60, seconds=0.01)
    rate = float(row.work.split(" slices/s")[0].replace(",", ""))
    assert row.our_seconds == pytest.approx(60 * 40 / rate, rel=0.1)
    assert row.part == "vae" and row.share_of_limit > 0


def test_dense_maps_are_timed_beside_heatmaps():
    row = localization.dense_maps(TINY, slices=10, batch=4, components=2, repetitions=1)
    assert row.part == "dense" and row.ratio > 0


def test_scoring_and_em_of_the_study():
    row = accelerator.scoring(TINY, slices=10, batch=4, components=2, repetitions=1)
    assert row.our_seconds > 0 and row.share_of_limit > 0
    assert "iterations" in accelerator.em(60, 4, 2, repetitions=1).work


def test_peers_in_pytorch_compute_the_same():
    """Each part raises unless they do; so it does with a learning rate of the peer's own."""
    pytest.importorskip("torch")
    for part in (training.simclr, training.vae):
        assert part(TINY, repetitions=1).ratio > 0
    assert training.unet(TINY._replace(size=32), repetitions=1).ratio > 0
    assert localization.heatmaps(TINY, 12, 2, repetitions=1).ratio > 0
    with pytest.MonkeyPatch.context() as patch:
        from experiments.benchmarks.peers import torch_training

        patch.setattr(torch_training.torch.optim, "Adam", torch_training.torch.optim.SGD)
        with pytest.raises(AssertionError, match="simclr: PyTorch"):
            training.simclr(TINY, repetitions=1)


def test_flow_in_freia_computes_the_same():
    pytest.importorskip("FrEIA")
    assert densities.flow(7, 16, 2, 5, 3, repetitions=1).ratio > 0


def test_batchgenerators_takes_the_same_views():
    pytest.importorskip("batchgenerators")
    assert volumes.augmentation(4, 16, repetitions=1).ratio > 0
