"""The phantom's healthy brains against the atlas's own files and scipy, and the tree of files."""

from pathlib import Path

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from scipy import ndimage

from cradl_jax.data.scans.layouts import find_scans
from cradl_jax.data.synthetic import phantom
from cradl_jax.data.synthetic.atlas import FIELD_OF_VIEW_MM, load_atlas
from cradl_jax.errors import InputError

SPACING = (4.0, 4.0, 4.0)


@pytest.fixture(scope="module")
def atlas():
    return load_atlas(SPACING)


@pytest.fixture(scope="module")
def subjects(atlas):
    return [
        jax.device_get(phantom.sample_healthy(jax.random.key(seed), atlas, SPACING))
        for seed in range(4)
    ]


def correlation(a, b, where):
    return np.corrcoef(a[where], b[where])[0, 1]


def test_atlas_lies_where_the_template_does(atlas):
    from nilearn import datasets

    image = datasets.load_mni152_gm_template(resolution=1)
    index = np.array(ndimage.center_of_mass(image.get_fdata()))
    expected = (image.affine @ [*index, 1])[:3]
    found = ndimage.center_of_mass(np.asarray(atlas.tissue[..., 1])) + np.asarray(atlas.origin_mm)
    np.testing.assert_allclose(found, expected, atol=1)


def test_tissue_shares_of_the_atlas_fill_the_brain_only(atlas):
    total = np.asarray(atlas.tissue).sum(-1)
    assert atlas.tissue.min() >= 0
    assert total.max() < 1.05
    assert np.mean((total > 0.05) & (total < 0.95)) < 0.06  # a thin shell
    assert total[[0, -1]].max() == total[:, [0, -1]].max() == 0


def test_same_key_same_subject_other_key_another_brain(atlas, subjects):
    again = phantom.sample_healthy(jax.random.key(1), atlas, SPACING)
    np.testing.assert_array_equal(again.intensities, subjects[1].intensities)
    for other in subjects[2:]:
        both = subjects[1].brain & other.brain
        assert correlation(subjects[1].intensities, other.intensities, both) < 0.9
        overlap = 2 * both.sum() / (subjects[1].brain.sum() + other.brain.sum())
        assert 0.85 < overlap < 0.99  # Dice of the heads' shapes


def test_background_is_zero_and_the_brain_lies_inside_the_field_of_view(subjects):
    for subject in subjects:
        assert subject.intensities.dtype == np.float32
        assert subject.intensities.shape == phantom.grid_shape(SPACING)
        np.testing.assert_array_equal(subject.intensities > 0, subject.brain)
        assert (subject.intensities[~subject.brain] == 0).all()
        assert not subject.brain[[0, -1]].any() and not subject.brain[:, [0, -1]].any()
        assert subject.brain[..., -1].sum() < 20  # below, the brain stem leaves the field
        liters = subject.brain.sum() * np.prod(SPACING) / 1e6
        assert 1.2 < liters < 2.6


def test_fluid_is_brighter_than_gray_than_white_matter(subjects):
    for subject in subjects:
        fluid, gray, white = (
            subject.intensities[subject.tissue[..., kind] > 0.9].mean() for kind in range(3)
        )
        assert fluid > 1.4 * gray > 1.4 * 1.2 * white


def test_partial_volume_lies_between_its_tissues(subjects):
    for subject in subjects:
        shares = subject.tissue[subject.brain]
        np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-5)
        assert np.mean(shares.max(-1) < 0.8) > 0.1
        half = (abs(subject.tissue[..., :2] - 0.5) < 0.1).all(-1)  # fluid and gray matter
        fluid, gray = (subject.intensities[subject.tissue[..., k] > 0.9].mean() for k in (0, 1))
        assert gray < subject.intensities[half].mean() < fluid


@pytest.mark.parametrize("seed", range(6))
def test_deformation_can_be_inverted(atlas, seed):
    deform = jax.jit(phantom.deformation, static_argnames="spacing_mm")
    points = np.asarray(deform(jax.random.key(seed), atlas, spacing_mm=SPACING))
    jacobian = np.stack(np.gradient(points, *SPACING, axis=(0, 1, 2)), axis=-1)
    volume = np.linalg.det(jacobian)
    assert volume.min() > 0
    assert volume.std() > 0.03  # and it does something


def test_smooth_field_has_unit_variance_and_does_not_depend_on_the_grid():
    key = jax.random.key(0)
    field = jax.jit(phantom.smooth_field, static_argnums=(1, 2, 3, 4))
    fine = field(key, (60, 60, 60), (1.0, 1.0, 1.0), 5.0, 2)
    coarse = field(key, (30, 20, 60), (2.0, 3.0, 1.0), 5.0, 2)
    np.testing.assert_allclose(fine[::2, ::3], coarse, atol=1e-5)
    assert 0.9 < fine.std() < 1.1
    shifted = np.asarray(fine[10:]), np.asarray(fine[:-10])
    assert abs(np.corrcoef(shifted[0].ravel(), shifted[1].ravel())[0, 1]) < 0.2


@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.integers(2, 7)] * 3), st.integers(0, 2**31 - 1))
def test_interpolation_is_trilinear(shape, seed):
    rng = np.random.default_rng(seed)
    volume = rng.normal(size=(*shape, 2)).astype(np.float32)
    points = rng.uniform(-1, np.array(shape), size=(40, 3)).astype(np.float32)
    found = jax.jit(phantom.interpolate)(volume, points)
    for channel in range(2):
        expected = ndimage.map_coordinates(
            volume[..., channel], points.T, order=1, mode="nearest", prefilter=False
        )
        np.testing.assert_allclose(found[:, channel], expected, atol=1e-5)


def test_noise_is_rician():
    """Its power adds to the signal's: E[m^2] = s^2 + 2 sigma^2 (Gudbjartsson and Patz, 1995)."""
    shape, replicate = (40, 40, 40), jnp.ones((40, 40, 40), bool)
    acquire = jax.jit(phantom.acquire, static_argnames="spacing_mm")
    empty = acquire(jax.random.key(0), jnp.zeros(shape), replicate, spacing_mm=SPACING, noise=0.2)
    rayleigh = np.asarray(empty)
    ratio = rayleigh.mean() / rayleigh.std()  # of a Rayleigh distribution, whatever its scale
    assert ratio == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.02)
    assert 0.7 * 0.2 < np.sqrt((rayleigh**2).mean() / 2) < 1.3 * 0.2


SUBJECTS = {
    "healthy": {"train": 2, "val": 1},
    "synth": {"val": 1, "test": 1},
    "lesion": {"val": 1, "test": 1},
}


def config(seed=0):
    return ConfigDict(
        {
            "data": {"root": None, "contrast": "T2w", "workers": 2},
            "phantom": {"spacing_mm": 4.0, "seed": seed, "subjects": SUBJECTS},
        }
    )


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    from experiments.phantom import main

    workdir = tmp_path_factory.mktemp("phantom")
    main(config(), workdir)
    return workdir


def volumes(workdir: Path) -> dict[Path, bytes]:
    """All that are not hidden, as what a killed process leaves aside."""
    found = (workdir / "data").rglob("[!.]*.nii.gz")
    return {path: path.read_bytes() for path in found}


def test_written_tree_is_read_back(workdir):
    seen = []
    for name, counts in SUBJECTS.items():
        scans = find_scans(workdir / "data" / name, "bids")
        splits = [scan.split for scan in scans]
        assert {split: splits.count(split) for split in splits} == counts
        seen += [scan.subject for scan in scans]
        for scan in scans:
            image = nib.load(scan.image)
            data = np.asarray(image.dataobj)
            assert data.dtype == np.int16 and 500 < data.max() < 4000 and data.min() == 0
            assert image.shape == (49, 58, 41)
            assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
            assert image.header.get_zooms() == (4, 4, 4)
            center = image.affine @ [*(np.array(image.shape) - 1) / 2, 1]
            np.testing.assert_allclose(center, [0, 0, 0, 1], atol=1e-4)
            assert (scan.mask is None) == (name == "healthy")
            if scan.mask is not None:
                mask = nib.load(scan.mask)
                np.testing.assert_array_equal(mask.affine, image.affine)
                assert mask.get_data_dtype() == np.uint8
                inside = np.asarray(mask.dataobj)
                assert set(np.unique(inside)) == {0, 1} and (data[inside == 1] > 0).all()
    assert len(set(seen)) == len(seen)


def test_healthy_test_brains_leave_all_others_as_they_are(workdir, tmp_path):
    from experiments.phantom import main

    more = config()
    more.phantom.subjects.healthy.test = 1
    main(more, tmp_path)
    before, after = (
        {path.relative_to(root): content for path, content in volumes(root).items()}
        for root in (workdir, tmp_path)
    )
    (added,) = after.keys() - before.keys()
    assert added.name == "sub-healthy004_T2w.nii.gz" and after.pop(added) not in before.values()
    assert after == before


def test_grid_covers_the_height_of_the_papers_volumes():
    """82 slices of 2 mm: Table 1's 145 slices of 1 mm and 10 dropped at each end."""
    assert FIELD_OF_VIEW_MM[2] == pytest.approx(145 + 2 * 10, abs=2)
    assert phantom.grid_shape((2.0, 2.0, 2.0))[2] == 82


def test_interrupted_writing_is_completed_and_finished_files_are_kept(workdir):
    from experiments.phantom import main

    before = volumes(workdir)
    first, second = find_scans(workdir / "data" / "lesion", "bids")
    lost = [first.image, second.mask, second.image]  # while one scan and one mask were written
    for path in lost:
        path.unlink()
    for path in lost[:2]:
        path.with_name(f".partial_0123abcd_{path.name}").write_bytes(before[path][:1000])
    times = {path: path.stat().st_mtime_ns for path in before if "lesion" not in path.parts}
    main(config(), workdir)
    assert volumes(workdir) == before
    assert find_scans(workdir / "data" / "lesion", "bids")[0] == first
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_other_settings_do_not_mix_with_what_is_there(workdir):
    from experiments.phantom import main

    before = volumes(workdir)
    with pytest.raises(InputError, match="healthy"):
        main(config(seed=1), workdir)
    assert volumes(workdir) == before
