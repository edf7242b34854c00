import numpy as np
import pytest

from agebench.report.projection import embed, fit_plane, obstacle, sample_rows


def test_pca_agrees_with_the_singular_value_decomposition_up_to_sign() -> None:
    rng = np.random.default_rng(0)
    train = rng.normal(size=(60, 8)) * np.arange(1, 9) + 7
    val = rng.normal(size=(20, 8)) * np.arange(1, 9) + 7
    mean = train.mean(axis=0)
    _, singular, axes = np.linalg.svd(train - mean, full_matrices=False)

    plane = fit_plane(train, "train")

    for features in (train, val):  # val is projected with train's mean and components
        expected = (features - mean) @ axes[:2].T
        np.testing.assert_allclose(np.abs(plane.project(features)), np.abs(expected), atol=1e-9)
    np.testing.assert_allclose(plane.explained, (singular**2 / np.sum(singular**2))[:2])


def test_one_dimensional_features_have_a_zero_second_component() -> None:
    features = np.arange(6.0)[:, None]

    plane = fit_plane(features, "train")

    np.testing.assert_allclose(np.abs(plane.project(features)[:, 0]), [2.5, 1.5, 0.5, 0.5, 1.5, 2.5])
    np.testing.assert_allclose(plane.project(features)[:, 1], 0)
    np.testing.assert_allclose(plane.explained, [1, 0])


def test_tsne_separates_two_distant_clusters_and_is_deterministic() -> None:
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(size=(20, 60)), rng.normal(size=(20, 60)) + 30])

    points = embed(features)

    gap = np.linalg.norm(points[:, None] - points[None], axis=2)  # (40, 40)
    np.fill_diagonal(gap, np.inf)
    nearest = gap.argmin(axis=1)
    assert ((nearest < 20) == (np.arange(40) < 20)).all()
    np.testing.assert_array_equal(points, embed(features))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "features",
    [
        pytest.param(np.eye(5), id="five images"),
        pytest.param(np.arange(9.0)[:, None], id="one dimension"),
        pytest.param(np.repeat(np.eye(3), 4, axis=0), id="duplicates"),
        pytest.param(np.outer(np.arange(9.0), np.ones(4)), id="rank one"),
        pytest.param(np.random.default_rng(0).normal(size=(9, 4)) * 1e30, id="huge"),
        pytest.param(np.random.default_rng(0).normal(size=(9, 4)) * 1e-30, id="tiny"),
    ],
)
def test_tsne_of_degenerate_features_is_finite(features: np.ndarray) -> None:
    assert obstacle(features) is None

    points = embed(features)

    assert points.shape == (len(features), 2)
    assert np.isfinite(points).all()


def test_too_few_or_constant_features_are_rejected_with_a_reason() -> None:
    assert "4 images" in str(obstacle(np.eye(4)))
    assert "0 images" in str(obstacle(np.zeros((0, 3))))
    assert "identical for all images" in str(obstacle(np.ones((10, 3))))
    assert "identical for all images" in str(obstacle(np.ones((10, 0))))


def test_a_sample_is_deterministic_without_duplicates_and_at_most_as_large_as_requested() -> None:
    rows = sample_rows(5_000, 800)

    assert len(np.unique(rows)) == 800
    np.testing.assert_array_equal(rows, sample_rows(5_000, 800))
    np.testing.assert_array_equal(sample_rows(3, 800), [0, 1, 2])
