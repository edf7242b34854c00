"""The numbers of the lectures' drawings, against SciPy, PyTorch and hand values."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import uniform_filter
from scipy.signal import correlate2d

from agebench import lecture
from agebench.lectures import activations, grids, kernels, optimizers, overfitting, pooling
from agebench.report.style import plot_style

# The 4 x 4 image and the kernel of the lecture, and the feature map that it computes by hand.
LECTURE_IMAGE = np.array([[1, 2, 3, 0], [0, 1, 2, 3], [1, 0, 1, 2], [2, 1, 0, 1]])
# The lecture's last value, -2, is a misprint: its own fourth step gives -4.
LECTURE_MAP = [[-4, -2], [0, -4]]


def table(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def test_the_vertical_kernel_gives_the_feature_map_of_the_lecture() -> None:
    found = kernels.apply_kernel(LECTURE_IMAGE, kernels.KERNELS["vertical"][1])

    assert found.tolist() == LECTURE_MAP


def test_the_blur_kernel_gives_the_mean_of_each_neighbourhood() -> None:
    image = np.random.default_rng(0).integers(0, 17, (9, 7))

    found = kernels.apply_kernel(image, kernels.KERNELS["blur"][1])

    np.testing.assert_allclose(found, uniform_filter(image.astype(float), 3)[1:-1, 1:-1])


@pytest.mark.parametrize("name", ["vertical", "horizontal", "sharpen", "blur"])
def test_a_kernel_is_a_cross_correlation(name) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30))
    kernel = kernels.KERNELS[name][1]

    found = kernels.apply_kernel(image, kernel)

    np.testing.assert_allclose(found, correlate2d(image, kernel, mode="valid"), atol=1e-9)


def test_a_shifted_image_has_moved_to_the_right_by_one_pixel() -> None:
    image = np.arange(1, 13).reshape(3, 4)

    found = pooling.shift_right(image)

    assert found.tolist() == [[0, 1, 2, 3], [0, 5, 6, 7], [0, 9, 10, 11]]


def test_max_pooling_equals_that_of_pytorch_and_of_the_lecture() -> None:
    image = np.array([[1, 3, 2, 1], [4, 6, 5, 0], [7, 8, 9, 2], [3, 4, 1, 6]])
    larger = np.random.default_rng(0).normal(size=(8, 8))

    assert pooling.max_pool(image).tolist() == [[6, 5], [8, 9]]
    expected = torch.nn.functional.max_pool2d(torch.tensor(larger)[None], 2)[0].numpy()
    np.testing.assert_array_equal(pooling.max_pool(larger), expected)


def test_derivatives_equal_their_closed_forms() -> None:
    x = np.linspace(-4.9, 4.9, 50)  # without 0, where ReLU has no derivative
    sigmoid = 1 / (1 + np.exp(-x))
    expected = {
        "identity": (x, np.ones_like(x)),
        "sigmoid": (sigmoid, sigmoid * (1 - sigmoid)),
        "tanh": (np.tanh(x), 1 - np.tanh(x) ** 2),
        "relu": (np.maximum(x, 0), (x > 0).astype(float)),
        "leaky_relu": (np.where(x > 0, x, 0.01 * x), np.where(x > 0, 1, 0.01)),
    }

    for name, (values, slopes) in expected.items():
        found = activations.evaluate(name, x)
        np.testing.assert_allclose(found[0], values, atol=1e-12)
        np.testing.assert_allclose(found[1], slopes, atol=1e-12)


def test_sgd_follows_the_closed_form_on_the_quadratic_surface() -> None:
    _, sgd = optimizers.OPTIMIZERS["SGD"]

    points = optimizers.follow(sgd, steps=5)

    # A step of 0.9 times the gradient (x / 10, 2 y) multiplies x by 0.91 and y by -0.8.
    expected = [[-7 * 0.91**step, 2 * (-0.8) ** step] for step in range(6)]
    np.testing.assert_allclose(points, expected, rtol=1e-12)


def test_the_first_adam_step_is_the_learning_rate_in_each_direction() -> None:
    _, adam = optimizers.OPTIMIZERS["Adam"]

    points = optimizers.follow(adam, steps=1)

    np.testing.assert_allclose(points[1] - points[0], [0.3, -0.3], rtol=1e-6)


def test_a_loss_is_close_when_it_stays_below_the_limit() -> None:
    assert optimizers.first_close(np.array([1, 0.001, 0.5, 0.009, 0.001])) == 3
    assert optimizers.first_close(np.array([1, 0.001, 0.5])) is None
    assert optimizers.first_close(np.array([0.001])) == 0


@pytest.fixture(scope="module")
def drawn_kernels(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kernels")
    lecture.draw("kernels", folder)
    return folder


@pytest.mark.ci
@pytest.mark.parametrize("name", ["pooling", "activations", "optimizers"])
def test_a_lecture_writes_pictures_with_ink_and_their_numbers(tmp_path, name) -> None:
    written = lecture.draw(name, tmp_path / "new" / name)

    assert sorted(written) == sorted((tmp_path / "new" / name).iterdir())
    assert {path.suffix for path in written} == {".png", ".csv"}
    for path in written:
        if path.suffix == ".csv":
            assert len(table(path)) >= 4
        else:
            assert np.asarray(Image.open(path).convert("L")).std() > 10


@pytest.mark.ci
def test_the_kernels_have_a_picture_of_steps_each_and_one_of_all_maps(drawn_kernels) -> None:
    pictures = sorted(path.name for path in drawn_kernels.glob("*.png"))

    names = ("blur", "example", "horizontal", "maps", "sharpen", "vertical")
    assert pictures == [f"kernels_{name}.png" for name in names]


@pytest.mark.ci
def test_the_examples_of_the_lecture_are_computed_step_by_step(drawn_kernels) -> None:
    steps = table(drawn_kernels / "kernels_example.csv")
    sums = [sum(float(row["product"]) for row in steps if row["step"] == step) for step in "1234"]

    assert (kernels.EXAMPLE == LECTURE_IMAGE).all()
    assert sums == [value for row in LECTURE_MAP for value in row]
    assert [row[-1] for row in pooling._steps(pooling.EXAMPLE)] == [6, 5, 8, 9]


@pytest.mark.ci
def test_the_products_of_each_step_sum_to_the_value_of_the_feature_map(drawn_kernels) -> None:
    steps, maps = table(drawn_kernels / "kernels_steps.csv"), table(drawn_kernels / "kernels_maps.csv")
    value = {
        (each["kernel"], int(each["row"]), int(each["column"])): float(each["value"])
        for each in maps
        if each["image"] == "digit"
    }
    for kernel in ("vertical", "horizontal", "sharpen", "blur"):
        for step in {each["step"] for each in steps if each["kernel"] == kernel}:
            products = [each for each in steps if (each["kernel"], each["step"]) == (kernel, step)]
            corner = (min(int(each["row"]) for each in products), min(int(each["column"]) for each in products))
            total = sum(float(each["product"]) for each in products)
            assert total == pytest.approx(value[(kernel, *corner)])


def test_the_chosen_epoch_has_the_lowest_validation_loss_and_the_title_names_both_runs(tmp_path, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(overfitting, "save", lambda figure, path: drawn.append(" ".join(figure.get_suptitle().split())))
    losses = np.array([0.9, 0.5, 0.4, 0.6, 0.8])
    values = dict.fromkeys(("train/loss", "val/loss", "train/accuracy", "val/accuracy"), losses)
    full = overfitting.Curves(np.arange(1, 6), values, {"test/nll": 0.75, "test/accuracy": 0.9061})
    tested = {"test/nll": 0.45, "test/accuracy": 0.9}
    stopped = overfitting.Curves(np.arange(1, 5), {key: v[:4] for key, v in values.items()}, tested)

    with plot_style():
        overfitting.draw_curves(tmp_path / "overfitting.png", full, stopped)

    assert full.best == 3
    assert "after epoch 3 the validation loss rises from 0.40 to 0.80" in drawn[0]
    assert "ends at epoch 4 and keeps epoch 3: test loss 0.45 instead of 0.75, " in drawn[0]
    assert "test accuracy 0.900 instead of 0.906 (one seed)" in drawn[0]


def test_a_number_has_at_most_two_decimals_and_a_true_minus() -> None:
    assert [grids.number(value) for value in (-4.0, 1 / 9, 0.5, -0.001, 10)] == ["−4", "0.11", "0.5", "0", "10"]


def lecture_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agebench", "lecture", *arguments], capture_output=True, text=True, check=False
    )


def test_without_a_name_the_lectures_are_listed_one_per_line() -> None:
    shown = lecture_command()

    assert (shown.returncode, shown.stderr) == (0, "")
    assert [line.split()[0] for line in shown.stdout.splitlines()] == [*lecture.LECTURES]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("kernel",),
            "lecture 'kernel' does not exist (did you mean 'kernels'?): choose from "
            "kernels, pooling, activations, optimizers, overfitting",
        ),
        (("pooling", "--folder", "x"), "unrecognized arguments: --folder x; --help describes the arguments"),
        (("pooling", "--out", "/dev/null/x"), "cannot write to /dev/null/x: Not a directory; choose another --out"),
    ],
)
def test_a_wrong_argument_gets_one_sentence_and_exit_code_2(monkeypatch, capsys, arguments, message) -> None:
    monkeypatch.setattr(sys, "argv", ["lecture", *arguments])

    with pytest.raises(SystemExit) as ended:
        lecture.main()

    assert ended.value.code == 2
    assert capsys.readouterr().err == f"agebench lecture: {message}\n"
