"""The paths of five optimizers on one surface, a long valley, by the classes of torch.optim."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, optim

from agebench.files import write_csv
from agebench.lectures.grids import LABEL_SIZE, Array, save, titled_figure
from agebench.report.style import COLOURS, MARKERS

# Name -> title of the panel and optimizer. The learning rates are round numbers that reach the minimum.
OPTIMIZERS: dict[str, tuple[str, Callable[..., Any]]] = {
    "SGD": ("SGD (確率的勾配降下法), learning rate 0.9", partial(optim.SGD, lr=0.9)),
    "momentum": ("momentum (モメンタム) 0.9, learning rate 0.1", partial(optim.SGD, lr=0.1, momentum=0.9)),
    "AdaGrad": ("AdaGrad, learning rate 1.5", partial(optim.Adagrad, lr=1.5)),
    "RMSprop": ("RMSprop, learning rate 0.2", partial(optim.RMSprop, lr=0.2)),
    "Adam": ("Adam, learning rate 0.3", partial(optim.Adam, lr=0.3)),
}
START = (-7.0, 2.0)
STEPS = 60
CLOSE = 0.01  # loss that counts as the minimum


def surface(x: Any, y: Any) -> Any:
    """Return the loss x² / 20 + y²: a valley that is flat along x and steep along y. Its minimum is 0 at (0, 0)."""
    return x**2 / 20 + y**2


def follow(optimizer: Callable[..., Any], steps: int = STEPS) -> Array:
    """Return the points before the first and after each step, float64, shape (steps + 1, 2)."""
    point = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    stepper = optimizer([point])
    points = [point.detach().clone()]
    for _ in range(steps):
        stepper.zero_grad()
        loss: Tensor = surface(point[0], point[1])
        loss.backward()
        stepper.step()
        points.append(point.detach().clone())
    return torch.stack(points).numpy()


def first_close(losses: Array) -> int | None:
    """Return the first step after which the loss stays below CLOSE; None if it does not."""
    above = np.flatnonzero(losses >= CLOSE)
    step = int(above[-1]) + 1 if len(above) else 0
    return step if step < len(losses) else None


def draw(folder: Path) -> list[Path]:
    """Write the picture of the paths and the losses, and their numbers."""
    paths = {name: follow(optimizer) for name, (_, optimizer) in OPTIMIZERS.items()}
    rows = [
        [name, step, x, y, surface(x, y)]
        for name, points in paths.items()
        for step, (x, y) in enumerate(points.tolist())
    ]
    return [
        _draw_paths(folder / "optimizers.png", paths),
        write_csv(folder / "optimizers.csv", ["optimizer", "step", "x", "y", "loss"], rows),
    ]


def _draw_paths(path: Path, paths: dict[str, Array]) -> Path:
    reached = {name: first_close(surface(*points.T)) for name, points in paths.items()}
    turns = {name: int((np.diff(np.sign(points[:, 1])) != 0).sum()) for name, points in paths.items()}
    first = min((step, name) for name, step in reached.items() if step is not None)
    title = (
        f"Optimizers (最適化手法) in a long valley, {STEPS} steps from the same point: SGD zigzags across it "
        f"{turns['SGD']} times; {first[1]} is the first to reach the minimum ({first[0]} steps)"
    )
    figure = titled_figure(15, 8.4, title)
    grid = figure.subplots(2, 3)
    for place, (axes, (name, points)) in enumerate(zip(grid.ravel(), paths.items(), strict=False)):
        step = reached[name]
        result = f"loss below {CLOSE} " + (f"after {step} steps" if step is not None else f"not in {STEPS} steps")
        _draw_path(axes, points, COLOURS[place])
        axes.set_title(f"{OPTIMIZERS[name][0]}\n{result}", fontsize=LABEL_SIZE)
    _draw_losses(grid[1, 2], paths)
    figure.supxlabel("loss = x² / 20 + y²; other learning rates (学習率) change the order", fontsize=LABEL_SIZE)
    return save(figure, path)


def _draw_path(axes: Axes, points: Array, colour: str) -> None:
    x, y = np.meshgrid(np.linspace(-8, 4, 121), np.linspace(-3.2, 3.2, 81))
    axes.contour(x, y, surface(x, y), levels=[0.05, 0.3, 1, 2, 4, 7], colors="#aaaaaa", linewidths=1)
    axes.plot(*points.T, color=colour, marker="o", markersize=4, linewidth=1.8)
    axes.plot(*START, marker="s", markersize=9, color="black")
    axes.plot(0, 0, marker="*", markersize=16, color="black")
    axes.annotate("start", START, xytext=(8, 6), textcoords="offset points", fontsize=LABEL_SIZE)
    axes.annotate("minimum", (0, 0), xytext=(8, -22), textcoords="offset points", fontsize=LABEL_SIZE)
    axes.set(xlim=(-8, 4), ylim=(-3.2, 3.2))
    axes.set_xlabel("weight x (flat direction)", fontsize=LABEL_SIZE)
    axes.set_ylabel("weight y (steep direction)", fontsize=LABEL_SIZE)
    axes.tick_params(labelsize=LABEL_SIZE - 1)


def _draw_losses(axes: Axes, paths: dict[str, Array]) -> None:
    for place, (name, points) in enumerate(paths.items()):
        style: dict[str, Any] = {
            "color": COLOURS[place],
            "marker": MARKERS[place],
            "markevery": (2 * place, 10),
            "markersize": 7,
        }
        axes.plot(surface(*points.T), label=name, **style)
    axes.axhline(CLOSE, color="#999999", linestyle=":")
    axes.set(yscale="log", ylim=(1e-6, 20), xlim=(0, STEPS))
    axes.yaxis.set_major_formatter("{x:g}")  # the default needs math text
    axes.set_xlabel("step", fontsize=LABEL_SIZE)
    axes.set_ylabel("loss (損失), log scale", fontsize=LABEL_SIZE)
    axes.set_title(f"Loss after each step; dotted: {CLOSE}", fontsize=LABEL_SIZE)
    axes.tick_params(labelsize=LABEL_SIZE - 1)
    axes.grid(True)
    axes.legend(fontsize=LABEL_SIZE - 1, loc="lower left")
