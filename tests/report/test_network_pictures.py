"""Figures of what a network sees."""

import numpy as np
import pytest

from agebench.report.explained import Explained
from agebench.report.network import draw_feature_maps, draw_heat, draw_kernels, overlay
from agebench.report.outcome import Outcome
from agebench.report.style import plot_style


def explained_of(**changes) -> Explained:
    rng = np.random.default_rng(0)
    arrays = {
        "rows": np.array([2, 0]),
        "images": rng.integers(0, 255, (2, 1, 6, 6)).astype(np.uint8),
        "heat": rng.normal(size=(2, 6, 6)).astype(np.float16),
        "method": "HiResCAM",
        "layer": "conv2",
        "kernels": rng.normal(size=(5, 1, 3, 3)),
        "map_image": np.zeros((1, 6, 6), dtype=np.uint8),
        "stages": {"conv1": rng.normal(size=(8, 6, 6)), "conv2": rng.normal(size=(4, 3, 3))},
    }
    return Explained(**{**arrays, **changes})


OUTCOME = Outcome(
    names=np.array(["a", "b", "c"]),
    target=np.array([0, 1, 1]),
    posterior=np.array([[0.3, 0.7], [0.5, 0.5], [0.1, 0.9]]),
    point=np.array([1.0, 0.0, 1.0]),
    values=np.arange(2.0),
    label_names=("cat", "dog"),
    ordered=False,
    unit="",
)


def test_the_arrays_are_read_as_they_were_written(tmp_path) -> None:
    explained = explained_of()

    read = Explained.load(explained.save(tmp_path / "explained.npz"))

    assert (read.method, read.layer, list(read.stages)) == ("HiResCAM", "conv2", ["conv1", "conv2"])
    np.testing.assert_array_equal(read.heat, explained.heat)
    np.testing.assert_array_equal(read.stages["conv2"], explained.stages["conv2"])


def test_a_heat_map_colours_the_strongest_region_most_and_leaves_cold_ones_grey() -> None:
    heat = np.zeros((2, 6, 6))
    heat[0, 1, 1], heat[0, 4, 4], heat[0, 2, 2] = 2.0, 1.0, -2.0
    explained = explained_of(heat=heat, images=np.full((2, 1, 6, 6), 102, dtype=np.uint8))

    drawn = overlay(explained, 0)

    orange, blue = np.array([213, 94, 0]) / 255, np.array([0, 114, 178]) / 255  # Okabe and Ito
    grey = 0.35 + 0.65 * 0.4  # black is drawn as 0.35
    np.testing.assert_allclose(drawn[0, 0], [grey] * 3)
    np.testing.assert_allclose(drawn[1, 1], 0.2 * grey + 0.8 * orange, atol=1e-3)
    np.testing.assert_allclose(drawn[4, 4], 0.6 * grey + 0.4 * orange, atol=1e-3)
    np.testing.assert_allclose(drawn[2, 2], 0.2 * grey + 0.8 * blue, atol=1e-3)


@pytest.mark.filterwarnings("error")
def test_correct_images_and_mistakes_are_apart_and_named() -> None:
    with plot_style():
        figure = draw_heat(explained_of(), OUTCOME, title="run")

    assert figure is not None
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["correct", "true: dog\ntaken for dog\n(90%)", "mistakes", "true: cat\ntaken for dog\n(70%)"]
    assert "(HiResCAM, a form of Grad-CAM, at conv2)" in figure.axes[0].get_title()
    assert len(figure.axes[0].images) == 4


def test_a_network_without_kernels_or_maps_has_no_figure_of_them() -> None:
    explained = explained_of(kernels=np.zeros(0), stages={})

    assert draw_kernels(explained, title="run") is None
    assert draw_feature_maps(explained, title="run") is None


@pytest.mark.parametrize(("channels", "words"), [(1, "orange: positive weights"), (3, "in colour")])
def test_each_kernel_is_drawn_once(channels, words) -> None:
    kernels = np.random.default_rng(0).normal(size=(5, channels, 3, 3))

    with plot_style():
        figure = draw_kernels(explained_of(kernels=kernels), title="run")

    assert figure is not None
    assert len(figure.axes[0].images) == 5
    assert words in figure.axes[0].get_title()
    if channels == 1:
        drawn, kernel = np.asarray(figure.axes[0].images[0].get_array()), kernels[0, 0]
        strong = np.abs(kernel) > 0.3 * np.abs(kernel).max()
        assert (np.sign(drawn[..., 0] - drawn[..., 2]) == np.sign(kernel))[strong].all()  # red - blue


def test_the_rows_of_the_feature_maps_name_their_layers() -> None:
    with plot_style():
        figure = draw_feature_maps(explained_of(), title="run")

    assert figure is not None
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["test image", "conv1\n6 x 6", "conv2\n3 x 3"]
    assert len(figure.axes[0].images) == 1 + 8 + 4
