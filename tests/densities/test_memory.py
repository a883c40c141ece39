from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from cradl_jax import methods, scoring
from cradl_jax.densities import memory
from cradl_jax.devices.batches import in_batches


def points(count, dimensions, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)


def far(vectors, queries):
    """Distances to the nearest vector, [N], by scikit-learn."""
    tree = NearestNeighbors(n_neighbors=1).fit(vectors.astype(float))
    return tree.kneighbors(queries.astype(float))[0][:, 0]


SHAPES = [(1, 1, 1), (1, 9, 3), (40, 1, 2), (33, 20, 8)]  # each is compiled


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SHAPES), st.floats(-30, 30), st.data())
def test_nearest_is_that_of_scikit_learn(shape, offset, data):
    kept, asked, dimensions = shape
    values = st.floats(-3, 3, width=32)
    vectors, queries = (
        data.draw(hnp.arrays(np.float32, (n, dimensions), elements=values)) + np.float32(offset)
        for n in (kept, asked)
    )
    found = memory.nearest(jnp.asarray(vectors), jnp.asarray(queries))
    np.testing.assert_allclose(found, far(vectors, queries), rtol=1e-4, atol=1e-2)


def test_blocks_of_queries_bound_the_memory(monkeypatch):
    monkeypatch.setattr(memory, "AT_ONCE", 2**14)
    vectors, queries = points(1000, 8), points(3001, 8, seed=1)
    compiled = jax.jit(memory.nearest).lower(vectors, queries).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None
    assert analysis.temp_size_in_bytes < 3 * 4 * 2**14 + 2 * (vectors.nbytes + queries.nbytes)
    np.testing.assert_allclose(compiled(vectors, queries), far(vectors, queries), rtol=1e-4)


def test_coreset_is_chosen_greedily():
    vectors = points(300, 5)
    chosen = np.asarray(memory.coreset(jax.random.key(3), vectors, 40))
    apart = cdist(vectors, vectors)
    by_hand = [chosen[0]]
    while len(by_hand) < 40:
        by_hand.append(int(apart[:, by_hand].min(1).argmax()))
    np.testing.assert_array_equal(chosen, by_hand)
    firsts = {int(memory.coreset(jax.random.key(n), vectors, 1)[0]) for n in range(8)}
    assert len(firsts) > 4, "the first is drawn"


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float32, (8, 2), elements=st.floats(-9, 9, width=32)), st.integers(1, 4))
def test_no_coreset_covers_more_than_twice_as_closely(vectors, count):
    apart = cdist(vectors, vectors)
    chosen = np.asarray(memory.coreset(jax.random.key(0), vectors, count))
    radius = apart[:, chosen].min(1).max()
    best = min(apart[:, few].min(1).max() for few in map(list, combinations(range(8), count)))
    assert radius <= 2 * best + 0.02


def test_patches_are_means_over_their_neighbours():
    features, projection = points(2 * 4 * 5, 6).reshape(2, 4, 5, 6), points(6, 3, seed=1)
    found = memory.of_patches(projection, features)
    padded = np.pad(features @ projection, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=np.nan)
    for row, column in np.ndindex(4, 5):
        near = padded[:, row : row + 3, column : column + 3]
        np.testing.assert_allclose(found[:, row, column], np.nanmean(near, (1, 2)), atol=1e-5)


@pytest.fixture(scope="module")
def scored():
    """A network's scorer of a memory, its parameters, and slices."""
    shape = {"size": 16, "features": 4, "latent": 8, "head": (8, 4), "dtype": "float32"}
    network = methods.network("cradl", **shape)
    features_of = methods.features_of(network, "memory")
    kept = memory.Memory(jnp.asarray(points(16, 3)), jnp.asarray(points(50, 3)))
    params = methods.initial_variables(network, 0, 16), kept
    images = np.clip(points(13, 256, seed=2), -1.5, 1.5).reshape(13, 16, 16)
    batch = scoring.Batch(images, images > 0, np.linspace(0, 1, 13, dtype=np.float32))
    return features_of, params, batch


def test_a_map_is_the_distance_of_its_patches(scored):
    features_of, params, batch = scored
    variables, kept = params
    features = features_of(variables, jnp.asarray(batch.images))
    queries = np.asarray(memory.of_patches(kept.projection, features))
    expected = far(np.asarray(kept.vectors), queries.reshape(-1, 3)).reshape(13, 8, 8)
    expected = jax.image.resize(expected, (13, 16, 16), "bilinear")
    scores, maps = scoring.local(features_of)(params, scoring.Batch(*map(jnp.asarray, batch)))
    assert not scores
    np.testing.assert_allclose(maps["memory"], expected, rtol=1e-4, atol=1e-4)


def test_maps_of_several_devices_are_those_of_one(scored):
    features_of, params, batch = scored
    alone, together = (
        np.concatenate(
            [
                one.heatmaps["memory"]
                for one in in_batches(
                    scoring.local(features_of),
                    params,
                    batch,
                    np.arange(13),
                    batch_size=8,
                    devices=jax.devices()[:count],
                )
            ]
        )
        for count in (1, 4)
    )
    assert alone.shape == (13, 16, 16)
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
