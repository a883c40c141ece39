import jax
import numpy as np
import pytest

from cradl_jax import densities
from cradl_jax.densities import dense, memory
from cradl_jax.errors import InputError
from cradl_jax.runs.densities import (
    byte_size,
    read_density,
    read_of_features,
    write_density,
    write_local,
)


@pytest.fixture(scope="module")
def z():
    return np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(z):
    key, size = jax.random.key(0), {"blocks": 2, "hidden": 8, "epochs": 2, "batch_size": 64}
    gmm, _ = densities.fit_gmm(key, z, components=1)
    flow, _ = densities.fit_realnvp(key, z, z[:100], **size)
    return {"GMM": gmm, "RealNVP": flow}


@pytest.mark.parametrize("kind", ["GMM", "RealNVP"])
def test_file_round_trip(z, fitted, kind, tmp_path):
    density = fitted[kind]
    path = tmp_path / "new" / "density.npz"
    write_density(path, density)
    again = read_density(path)
    assert type(again.model) is type(density.model)
    for ours, theirs in zip(jax.tree.leaves(again), jax.tree.leaves(density), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    expected = densities.log_prob(density, z)
    np.testing.assert_array_equal(densities.log_prob(again, z), expected)
    assert [file.name for file in path.parent.iterdir()] == ["density.npz"]


def test_damaged_or_foreign_files_are_named(fitted, tmp_path):
    write_density(tmp_path / "whole.npz", fitted["GMM"])
    whole = (tmp_path / "whole.npz").read_bytes()
    middle = len(whole) // 2
    flipped = whole[:300] + bytes([whole[300] ^ 255]) + whole[301:]
    files = {"cut": whole[:middle], "empty": b"", "text": b"not a density", "flipped": flipped}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    np.savez(tmp_path / "foreign.npz", images=np.zeros(3))
    arrays = dict(np.load(tmp_path / "whole.npz"))
    np.savez(tmp_path / "kind.npz", **arrays | {"kind": "VAE"})
    np.savez(tmp_path / "sizes.npz", **arrays | {"mean": np.zeros(7)})
    write_density(tmp_path / "flow.npz", fitted["RealNVP"])
    flow = dict(np.load(tmp_path / "flow.npz"))
    np.savez(tmp_path / "narrower.npz", **flow | {"hidden_bias": flow["hidden_bias"][:, 1:]})
    np.savez(tmp_path / "order.npz", **flow | {"permutations": np.float32(flow["permutations"])})
    np.savez(tmp_path / "object.npz", **arrays | {"mean": np.array([{}], object)})
    changed = ("foreign", "kind", "sizes", "narrower", "order", "object", "missing")
    for name in (*files, *(f"{name}.npz" for name in changed)):
        with pytest.raises(InputError, match=name):
            read_density(tmp_path / name)
    message = f"{tmp_path / 'cut'}: expected a density written by this package, found a damaged"
    with pytest.raises(InputError, match=f"{message} file, or one of another kind; remove it and"):
        read_density(tmp_path / "cut")


def test_gaussians_of_positions_come_back_and_others_are_named(fitted, tmp_path):
    features = np.random.default_rng(0).normal(size=(50, 2, 2, 4)).astype(np.float32)
    gaussians = dense.fit(np.float32([0, 1]), [(features, np.linspace(0, 1, 50))])
    write_local(tmp_path / "whole.npz", gaussians)
    for ours, theirs in zip(
        read_of_features(tmp_path / "whole.npz", "pixel"), gaussians, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    arrays = gaussians._asdict()
    np.savez(tmp_path / "heights.npz", **arrays | {"heights": np.zeros(3)})
    np.savez(tmp_path / "features.npz", **arrays | {"mean": np.zeros((2, 2, 2, 3))})
    np.savez(tmp_path / "scalar.npz", **arrays | {"mean": np.float32(0)})
    write_density(tmp_path / "mixture.npz", fitted["GMM"])
    for name in ("heights.npz", "features.npz", "scalar.npz", "mixture.npz", "missing.npz"):
        with pytest.raises(InputError, match=name):
            read_of_features(tmp_path / name, "pixel")


def test_byte_size_is_that_of_the_files_but_for_their_headers(tmp_path):
    z = np.random.default_rng(0).normal(size=(400, 32)).astype(np.float32)
    key, shape = jax.random.key(0), {"blocks": 4, "hidden": 64}
    for components in (2, 3):
        write_density(
            tmp_path / f"gmm{components}.npz",
            densities.fit_gmm(key, z, components=components, max_iterations=1)[0],
        )
    write_density(
        tmp_path / "flow.npz", densities.fit_realnvp(key, z, z[:50], **shape, epochs=1)[0]
    )
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    write_local(tmp_path / "dense.npz", joint(heights=24, grid=8, components=32, size=16))
    dense_size = (tmp_path / "dense.npz").stat().st_size
    whole = byte_size(32, components=(2, 3), **shape, image=16)
    assert whole == pytest.approx(size + dense_size, rel=0.1)
    kept = byte_size(32, components=(2, 3), **shape, image=16, memory=1000)
    assert kept - whole == 1000 * dense.COMPONENTS * 4
    fewer = byte_size(32, components=(2,), **shape, image=16)
    third = (tmp_path / "gmm3.npz").stat().st_size
    assert whole - fewer == pytest.approx(third, rel=0.15)  # headers weigh more


def joint(heights, grid, components, size):
    """Gaussians of twice as many features as components, all standard normal."""

    def standard(side, count):
        mean = np.zeros((heights, side, side, count), np.float32)
        unit = np.broadcast_to(np.eye(count, dtype=np.float32), (*mean.shape, count))
        return dense.Dense(np.linspace(0, 1, heights, dtype=np.float32), mean, unit)

    projection = np.ones((2 * components, components), np.float32)
    return dense.Joint(projection, standard(grid, components), standard(size, 1))


def test_gaussians_of_features_come_back_and_others_are_named(tmp_path):
    written = joint(heights=2, grid=2, components=3, size=4)
    write_local(tmp_path / "whole.npz", written)
    again = read_of_features(tmp_path / "whole.npz", "dense")
    assert jax.tree.structure(again) == jax.tree.structure(written)
    for ours, theirs in zip(jax.tree.leaves(again), jax.tree.leaves(written), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    arrays = dict(np.load(tmp_path / "whole.npz"))
    np.savez(tmp_path / "projection.npz", **arrays | {"projection": np.ones((6, 2))})
    np.savez(tmp_path / "array.npz", **arrays | {"features": np.ones(2)})
    np.savez(tmp_path / "mean.npz", **arrays | {"pixels.mean": np.ones((2, 4, 4, 2))})
    np.savez(tmp_path / "one.npz", **written.pixels._asdict())
    for name in ("projection.npz", "array.npz", "mean.npz", "one.npz", "missing.npz"):
        with pytest.raises(InputError, match=name):
            read_of_features(tmp_path / name, "dense")


def test_a_memory_comes_back_and_another_is_named(tmp_path):
    rng = np.random.default_rng(0)
    projection, vectors = (rng.normal(size=(n, 3)).astype(np.float32) for n in (6, 20))
    write_local(tmp_path / "whole.npz", memory.Memory(projection, vectors))
    again = read_of_features(tmp_path / "whole.npz", "memory")
    assert isinstance(again, memory.Memory)
    np.testing.assert_array_equal(again.projection, projection)
    np.testing.assert_array_equal(again.vectors, vectors)
    np.savez(tmp_path / "empty.npz", projection=projection, vectors=vectors[:0])
    np.savez(tmp_path / "projection.npz", projection=projection[:, :2], vectors=vectors)
    np.savez(tmp_path / "array.npz", projection=projection, vectors=vectors[0])
    np.savez(tmp_path / "names.npz", projection=projection, patches=vectors)
    write_local(tmp_path / "joint.npz", joint(heights=2, grid=2, components=3, size=4))
    for name in ("empty.npz", "projection.npz", "array.npz", "names.npz", "joint.npz"):
        with pytest.raises(InputError, match=name):
            read_of_features(tmp_path / name, "memory")
