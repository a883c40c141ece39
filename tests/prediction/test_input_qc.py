"""Descriptions against scipy and shapes worked by hand; warnings on phantoms that were spoiled."""

import json
import os
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import jax
import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from scipy.spatial.transform import Rotation

from cradl_jax.data.scans.volumes import read_origin, read_volume
from cradl_jax.data.slices.scan_statistics import (
    BINS,
    CELL_MM,
    CELLS,
    DEPTHS_MM,
    Description,
    describe,
)
from cradl_jax.data.synthetic import phantom
from cradl_jax.data.synthetic.atlas import load_atlas
from cradl_jax.errors import InputError
from cradl_jax.prediction.input_qc import (
    ONE_SCAN,
    Reference,
    background,
    summarize,
    unlike_the_others,
    warnings,
)
from tests.helpers.scans import brain, volume, write

SPACING = (4.0, 4.0, 4.0)
SCAN = Path(
    os.environ.get("CRADL_TEST_SCAN")
    or Path(__file__).parents[3] / "shared" / "data" / "TCGA-DU-7294_T2w.nii.gz"
)


def test_a_background_that_was_set_to_0_is_told():
    assert background(None) == []
    (sentence,) = background(-1.0)
    assert "not exactly 0 but, throughout or nearly, -1;" in sentence


def scan(data, spacing=SPACING, **kwargs):
    return volume(data, np.diag([*spacing, 1]), **kwargs)


@pytest.fixture(scope="module")
def heads():
    atlas = load_atlas(SPACING)
    return [
        np.asarray(phantom.sample_healthy(jax.random.key(seed), atlas, SPACING).intensities)
        for seed in range(14)
    ]


@pytest.fixture(scope="module")
def training(heads):
    return [describe(scan(head)) for head in heads[:8]]


@pytest.fixture(scope="module")
def reference(training):
    """As it comes back from the file of a run."""
    return Reference(**json.loads(json.dumps(summarize(training).model_dump())))


def distance_mm(shape, spacing):
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    return np.sqrt(sum(x**2 for x in np.meshgrid(*axes, indexing="ij")))


@pytest.mark.parametrize(
    ("axis", "verb"), [(0, "nods"), (1, "leans to a shoulder"), (2, "looks aside")]
)
def test_a_turned_head_is_told_and_by_how_much(heads, reference, axis, verb):
    """Heads that stand by chance as the training's do, each turned by 12 degrees to either side."""
    told = []
    for head, degrees in product(heads[8:], (-12, 12)):
        turn = Rotation.from_rotvec(np.deg2rad(degrees) * np.eye(3)[axis]).as_matrix()
        wide = np.pad(head, 8)
        middle = (np.array(wide.shape) - 1) / 2
        where = turn.T, middle - turn.T @ middle
        inside = ndimage.affine_transform((wide != 0) * 1.0, *where, order=1) >= 0.5
        moved = np.maximum(ndimage.affine_transform(wide, *where, order=1), 1e-3)
        text = " ".join(warnings(describe(scan(np.where(inside, moved, 0))), reference))
        told += re.findall(rf"the head .*?{verb} by about (\d+) degrees", text)
    assert len(told) >= 10, "of 12"
    assert abs(np.mean([int(degrees) for degrees in told]) - 12) < 3


def test_a_ball_is_described_as_it_is():
    shape, spacing = (90, 60, 40), (2.0, 3.0, 4.0)
    distance = distance_mm(shape, spacing)
    values = np.random.default_rng(0).normal(100, 20, shape)
    found = describe(scan(np.where(distance < 70, values, 0), spacing, states_orientation=False))
    assert found.brain_ml == pytest.approx(4 / 3 * np.pi * 70**3 / 1000, rel=0.01)
    ball = stats.beta(2, 2, -70, 140)  # of the coordinate of a point in it
    np.testing.assert_allclose(found.extent_mm, ball.ppf(0.995) - ball.ppf(0.005), rtol=0.02)
    assert found.n_slices == 34  # centers at 2, 6, ..., 66 mm, on either side
    assert found.spacing_mm == [2, 3, 4] and not found.oriented
    expected, _ = np.histogram(
        np.clip(stats.zscore(values[distance < 70]), -1.5, 1.5), BINS, (-1.5, 1.5), density=True
    )
    np.testing.assert_allclose(found.histogram, expected * 3 / BINS, atol=1e-3)
    share, light = np.reshape(found.pattern, (2, CELLS, CELLS, CELLS))
    assert share.sum() * CELL_MM**3 / 1000 == pytest.approx(found.brain_ml, rel=1e-3)
    assert share[6, 6, 6] == 1 and share[0].sum() == 0
    assert np.abs(light).max() < 0.25


def test_layers_lie_below_the_surface():
    distance = distance_mm((60, 60, 60), (2.5, 2.5, 2.5))
    data = np.where(distance < 62, 100 + distance, 0)
    found = describe(scan(data, (2.5, 2.5, 2.5)))
    inside = data[data > 0]
    depths = 62 - np.add(DEPTHS_MM[:-1], DEPTHS_MM[1:]) / 2  # in the middle of the layers
    expected = np.clip((100 + depths - inside.mean()) / inside.std(), -1.5, 1.5)
    np.testing.assert_allclose(found.layers, expected, atol=0.15)


def test_neither_the_field_of_view_nor_the_unit_nor_the_resolution_matters(heads):
    first = describe(scan(heads[0]))
    wider = np.pad(heads[0], ((3, 9), (0, 4), (7, 1))) * 321
    assert describe(scan(wider)) == first
    fine = heads[0].repeat(2, 0).repeat(2, 1).repeat(2, 2)
    finer = describe(scan(fine, (2.0, 2.0, 2.0)))
    np.testing.assert_allclose(finer.pattern, first.pattern, atol=2e-3)
    np.testing.assert_allclose(finer.histogram, first.histogram, atol=1e-5)
    assert finer.brain_ml == first.brain_ml and finer.n_slices == 2 * first.n_slices


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(2, 12)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 30)] * 3),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_any_volume_can_be_described_and_compared(shape, spacing, share, seed):
    rng = np.random.default_rng(seed)
    data = np.where(rng.uniform(size=shape) < share, rng.normal(size=shape), 0)
    data[0, 0, 0], data[-1, -1, -1] = 1, 2
    found = describe(scan(data, spacing))
    again = Description(**json.loads(json.dumps(found._asdict(), allow_nan=False)))
    assert again == found
    own = summarize([found])
    json.dumps(own.model_dump(), allow_nan=False)
    assert all(isinstance(sentence, str) for sentence in warnings(again, own))


def test_limits_are_those_of_the_docstring(training):
    four = training[:4]
    found = summarize(four)
    centers = (np.arange(BINS) + 0.5) * 3 / BINS - 1.5
    distances = {"contrast": [], "shape": [], "layers": [], "appearance": []}
    for number, one in enumerate(four):
        others = [d for d in four if d is not four[number]]
        means = {
            name: np.mean([getattr(d, name) for d in others], 0)
            for name in ("histogram", "pattern", "layers")
        }
        distances["contrast"].append(
            stats.wasserstein_distance(centers, centers, one.histogram, means["histogram"])
        )
        here, there = (np.reshape(p, (2, -1)) for p in (one.pattern, means["pattern"]))
        distances["shape"].append(np.abs(here - there)[0].sum() / there[0].sum())
        distances["layers"].append(np.abs(one.layers - means["layers"]).max())
        both = (here[0] > 0.5) & (there[0] > 0.5)
        pair = ((x[1] / np.maximum(x[0], 1e-9))[both] for x in (here, there))
        distances["appearance"].append(1 - stats.pearsonr(*pair).statistic)
    for name, values in distances.items():
        expected = max(values) + 1.5 * (max(values) - np.median(values)) + ONE_SCAN[name] / 4
        assert found.limits[name] == pytest.approx(expected, abs=1e-3), name
    liters = [d.brain_ml for d in four]
    margin = 1 * np.ptp(liters) + 0.25 * np.median(liters)
    np.testing.assert_allclose(
        found.ranges["brain_ml"], (min(liters) - margin, max(liters) + margin), rtol=1e-5
    )


def test_without_training_scans_nothing_is_usual():
    with pytest.raises(InputError, match="training scans"):
        summarize([])


@pytest.mark.parametrize("count", (1, 2, 4, 8))
def test_scans_like_those_of_the_training_raise_no_warning(heads, training, count):
    few = summarize(training[:count])
    for head in heads[8:]:
        assert warnings(describe(scan(head)), few) == []
        noise = 0.1 * head[head > 0].std() * np.random.default_rng(0).normal(size=head.shape)
        assert warnings(describe(scan(np.where(head > 0, head + noise, 0))), few) == []


@pytest.mark.parametrize("first", [0, 3, 7])
def test_four_faults_among_seven_training_scans_are_told_apart(heads, first):
    """Each scan has a fault of its own, none hides another, and the sound ones pass."""
    swapped, inverted, hot, unstated, *sound = (head.copy() for head in heads[first : first + 7])
    inverted[inverted > 0] = inverted.max() + 1 - inverted[inverted > 0]
    hot[tuple(np.argwhere(hot > 0)[len(hot)])] = 1e6
    scans = [*map(scan, sound), scan(swapped.transpose(0, 2, 1)), scan(inverted), scan(hot)]
    scans.append(scan(unstated, states_orientation=False))
    found = unlike_the_others(list(map(describe, scans)))
    assert sorted(found) == [3, 4, 5, 6]
    for number, pattern in (
        (3, "axes look"),
        (4, "inverted"),
        (5, "distributed"),
        (6, "how the h"),
    ):
        assert re.search(pattern, " ".join(found[number])), found[number]


@pytest.mark.parametrize("n", [1, 2, 14])
def test_sound_training_scans_are_alike(heads, n):
    assert unlike_the_others([describe(scan(head)) for head in heads[:n]]) == {}


def with_skull(head, scalp=2):
    """A dark layer of bone and a bright one of skin and fat around a brain."""
    head = np.pad(head, scalp + 2)
    inner = ndimage.binary_closing(head > 0, iterations=2)
    bone = ndimage.binary_dilation(inner)
    skin = ndimage.binary_dilation(bone, iterations=scalp) & ~bone
    level = head[head > 0].mean()
    values = np.random.default_rng(0).uniform(0.8, 1.6, head.shape)
    bone &= head == 0
    return np.where(bone, 0.1 * level, np.where(skin, level * values, head))


def noise_in_a_box(head):
    box = np.zeros(head.shape)
    box[6:-6, 6:-6, 4:-4] = np.random.default_rng(0).uniform(0.1, 1, box[6:-6, 6:-6, 4:-4].shape)
    return box


SPOILED = {
    "inverted": (lambda head: np.where(head > 0, 1.05 * head.max() - head, 0), "inverted"),
    "inverted in ranks": (lambda head: np.where(head > 0, 1 / np.maximum(head, 0.1), 0), "invert"),
    "right and front swapped": (
        lambda head: head.transpose(1, 0, 2),
        "what the file calls back-front looks like left-right",
    ),
    "right and top swapped": (lambda head: head.transpose(2, 1, 0), "bottom-top looks like left"),
    "front and top swapped": (lambda head: head.transpose(0, 2, 1), "bottom-top looks like back"),
    "turned twice": (lambda head: head.transpose(1, 2, 0), "axes look swapped"),
    "upside down": (lambda head: head[:, :, ::-1], "bottom-top looks reversed"),
    "back to front": (lambda head: head[:, ::-1], "back-front looks reversed"),
    "skull": (with_skull, "skull"),
    "thin scalp": (lambda head: with_skull(head, 1), "skull or other tissue"),
    "too much cut away": (
        lambda head: np.where(ndimage.binary_erosion(head > 0, iterations=2), head, 0),
        "too much cut away",
    ),
    "noise in a box": (noise_in_a_box, "not look like a head.*fill 1"),
    "few slices": (lambda head: head[:, :, 18:24], "spans 6 axial slices"),
    "half a brain": (lambda head: head[:, :, :20], "axial slices, usual"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_spoiled_scans_are_named(heads, reference, name):
    spoil, words = SPOILED[name]
    for head in heads[8:]:
        found = warnings(describe(scan(spoil(head))), reference)
        assert any(re.search(words, sentence) for sentence in found), found
        assert all(sentence.endswith(".") for sentence in found)


def test_a_mirrored_head_is_not_told_from_a_head(heads, reference):
    assert warnings(describe(scan(heads[9][::-1])), reference) == []


def test_wrong_voxel_sizes(heads, reference):
    double = warnings(describe(scan(heads[9], (8.0, 8.0, 8.0))), reference)
    assert "not look like a head" in double[0] and "voxel size in its header" in double[0]
    assert any("8 x 8 x 8 mm" in sentence for sentence in double)
    thick = scan(heads[9][..., ::2], (4.0, 4.0, 8.0))
    (found,) = warnings(describe(thick), reference)
    assert "4 x 4 x 8 mm" in found


def test_unstated_orientation_is_a_warning(heads, reference):
    (found,) = warnings(describe(scan(heads[9], states_orientation=False)), reference)
    assert "does not say how the head lies" in found


def test_what_files_say_about_orientation(tmp_path):
    data, affine = brain((7, 9, 8)), np.diag([2.0, 2, 3, 1])
    unknown = nib.Nifti1Image(data, affine)
    unknown.set_sform(None, "unknown")
    unknown.set_qform(None, "unknown")
    q_only = nib.Nifti1Image(data, affine)
    q_only.set_qform(affine, "scanner")
    q_only.set_sform(None, "unknown")
    images = {
        "q.nii": (q_only, True),
        "s.nii.gz": (nib.Nifti1Image(data, affine), True),
        "unknown.nii": (unknown, False),
        "identity.nii": (nib.Nifti1Image(data, np.eye(4)), False),
        "surfer.mgz": (nib.MGHImage(data, affine), True),
        "pair.img": (nib.Nifti1Pair(data, affine), True),
        "analyze.img": (nib.AnalyzeImage(data, np.diag([-2, 2, 3, 1])), False),
    }
    for name, (image, expected) in images.items():
        nib.save(image, tmp_path / name)
        assert read_origin(tmp_path / name).states_orientation is expected, name
    with pytest.raises(InputError, match="no such file"):
        read_origin(tmp_path / "lost.nii")
    assert read_origin(write(tmp_path / "scan.nii.gz", data)).states_orientation


@pytest.mark.skipif(not SCAN.is_file(), reason="the real scan is not here")
def test_a_real_scan_is_a_head_whose_axes_are_found_from_phantoms(reference):
    real = read_volume(SCAN)
    assert real.origin.states_orientation
    upright = warnings(describe(real), reference)
    assert upright, "another scanner and voxel size than the phantoms'"
    assert not any("axes" in s or "not look like a head" in s for s in upright)
    turned = replace(real, data=real.data.transpose(1, 0, 2))
    assert any(
        "back-front looks like left-right" in s for s in warnings(describe(turned), reference)
    )
