"""Activation functions and their derivatives (by torch.autograd), and softmax."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agebench.files import write_csv
from agebench.lectures.grids import LABEL_SIZE, Array, save, titled_figure
from agebench.models.activation import activation_layer
from agebench.report.style import COLOURS

# Name of agebench.models.activation -> title of its panel. Derivatives are what backpropagation multiplies.
SHOWN = {
    "identity": "identity (恒等関数): output of a regression",
    "sigmoid": "sigmoid (シグモイド): output of two classes",
    "tanh": "tanh: a sigmoid from −1 to 1",
    "relu": "ReLU: hidden layers, slope 0 or 1",
    "leaky_relu": "leaky ReLU: slope 0.01 below 0",
    "gelu": "GELU: a smooth ReLU",
}
SCORES = (2.0, 1.0, 0.0, -1.0)
DEPTH = 10  # layers


def evaluate(name: str, x: Array) -> tuple[Array, Array]:
    """Return the values and the derivatives of an activation function, float64, both of the shape of x."""
    points = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    values: Tensor = activation_layer(name)(points)
    (slopes,) = torch.autograd.grad(values.sum(), points)
    return values.detach().numpy(), slopes.numpy()


def draw(folder: Path) -> list[Path]:
    """Write the picture of the functions, the one of softmax, and their numbers."""
    x = np.linspace(-5, 5, 201)
    found = {name: evaluate(name, x) for name in SHOWN}
    columns = ["x", *(f"{name}{what}" for name in found for what in ("", "_derivative"))]
    rows = np.column_stack([x, *(each for pair in found.values() for each in pair)])
    shares = torch.softmax(torch.tensor(SCORES, dtype=torch.float64), dim=0).tolist()
    return [
        _draw_functions(folder / "activations.png", x, found),
        _draw_softmax(folder / "activations_softmax.png", shares),
        write_csv(folder / "activations.csv", columns, rows.round(6).tolist()),
        write_csv(folder / "activations_softmax.csv", ["score", "softmax"], zip(SCORES, shares, strict=True)),
    ]


def _draw_functions(path: Path, x: Array, found: dict[str, tuple[Array, Array]]) -> Path:
    steepest = found["sigmoid"][1].max()
    title = (
        f"Activation functions (活性化関数): the slope of sigmoid is at most {steepest:g}, so {DEPTH} layers pass on "
        f"at most {steepest**DEPTH:.4%} of a gradient (vanishing gradient, 勾配消失); ReLU passes on all of it above 0"
    )
    figure = titled_figure(14, 8, title)
    grid = figure.subplots(2, 3, sharex=True, sharey=True)
    for axes, (name, (values, slopes)) in zip(grid.ravel(), found.items(), strict=True):
        axes.axhline(0, color="#999999", linewidth=0.8)
        axes.axvline(0, color="#999999", linewidth=0.8)
        axes.plot(x, values, color=COLOURS[0], linewidth=2.5, label="value f(x)")
        axes.plot(x, slopes, color=COLOURS[1], linewidth=2.5, linestyle="--", label="derivative f′(x) (導関数)")
        axes.set_title(SHOWN[name], fontsize=LABEL_SIZE)
        axes.grid(True)
        axes.tick_params(labelsize=LABEL_SIZE - 1)
        axes.set(ylim=(-1.3, 3), xlim=(-5, 5))
    for axes in grid[1]:
        axes.set_xlabel("input x", fontsize=LABEL_SIZE)
    for axes in grid[:, 0]:
        axes.set_ylabel("f(x), f′(x)", fontsize=LABEL_SIZE)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=LABEL_SIZE)
    return save(figure, path)


def _draw_softmax(path: Path, shares: list[float]) -> Path:
    title = f"Softmax (ソフトマックス): a score that is 1 higher gives {np.e:.2f} times the share; all shares sum to 1"
    figure = titled_figure(10, 4.6, title)
    names = [f"class {i}" for i in range(len(SCORES))]
    for axes, values, what in zip(
        figure.subplots(1, 2),
        (SCORES, shares),
        ("score (output of the network)", "softmax (share of the classes)"),
        strict=True,
    ):
        bars = axes.bar(names, values, color=COLOURS[0])
        axes.bar_label(bars, [f"{value:.2f}".replace("-", "−") for value in values], fontsize=LABEL_SIZE, padding=3)
        axes.axhline(0, color="#999999", linewidth=0.8)
        axes.margins(y=0.15)
        axes.set_ylabel(what, fontsize=LABEL_SIZE)
        axes.tick_params(labelsize=LABEL_SIZE - 1)
    return save(figure, path)
