"""The layers of a network with their output shapes and numbers of parameters, as a text table."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from agebench.text import align_columns

MAX_ROWS = 40
NO_SHAPE = "-"  # of parameters that belong to no layer of the table


class Layer(NamedTuple):
    """A row of the table: `conv1`, `Conv2d`, `(B, 32, 28, 28)`, 320."""

    name: str
    type: str
    output_shape: str
    parameters: int


class Summary(NamedTuple):
    """The layers of a network, and the same as a text table with the totals."""

    layers: list[Layer]
    text: str


def summarise_model(model: nn.Module, image_shape: tuple[int, int, int]) -> Summary:
    """Run a blank image through a network, and return the layers that are used.

    A network with more than MAX_ROWS leaf layers is listed by block.

    Args:
        model: Maps float images (B, C, S, S) to (B, K).
        image_shape: (C, S, S).

    Returns:
        The layers, and one line `layer (Type)  output shape  parameters` per layer. B is the batch dimension.
    """
    shapes: dict[str, str] = {}

    def shape_hook(name: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) and output else output
            if isinstance(output, Tensor):
                shapes[name] = str(("B", *output.shape[1:])).replace("'", "")

        return hook

    named = [(name, module) for name, module in model.named_modules() if name]
    hooks = [module.register_forward_hook(shape_hook(name)) for name, module in named]
    modes = [(module, module.training) for module in model.modules()]
    parameter = next(model.parameters())
    try:
        with torch.no_grad():
            model.eval()(torch.zeros((1, *image_shape), device=parameter.device))
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:  # not model.train(): a frozen module stays in evaluation mode
            module.training = training

    header = ("layer (type)", "output shape", "parameters")
    layers = _layers(model, shapes)
    rows = [(f"{each.name} ({each.type})", each.output_shape, f"{each.parameters:,}") for each in layers]
    lines = ["  ".join(cells) for cells in align_columns(header, rows, (False, False, True))]
    total, trainable = count_parameters(model)
    rule = "-" * len(lines[0])
    totals = f"parameters: {total:,} total, {trainable:,} trainable, {total - trainable:,} frozen"
    return Summary(layers, "\n".join([lines[0], rule, *lines[1:], rule, totals]))


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return the total number of parameters of a network and the number of trainable ones."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def _layers(model: nn.Module, shapes: dict[str, str]) -> list[Layer]:
    """Return rows that contain each parameter once."""
    modules = dict(model.named_modules())
    used = [name for name in modules if name in shapes]
    # Some layers contain others and never call them, such as nn.MultiheadAttention.
    leaves = {name for name in used if not any(other.startswith(f"{name}.") for other in used)}
    chosen = [name for name in used if name in leaves]
    for depth in (3, 2):
        if len(chosen) > MAX_ROWS:
            chosen = [n for n in used if n.count(".") + 1 == depth or (n.count(".") + 1 < depth and n in leaves)]
    if len(chosen) > MAX_ROWS:
        chosen = [name for name, _ in model.named_children()]
    counted: set[Parameter] = set()
    rows = {}
    for name in chosen:
        found = set(modules[name].parameters()) - counted
        counted |= found
        rows[name] = Layer(name, type(modules[name]).__name__, shapes.get(name, ""), sum(p.numel() for p in found))
    for name, module in modules.items():  # what belongs to no row, such as a class token
        held = {n: p for n, p in module.named_parameters(name, recurse=False) if p not in counted}
        counted |= set(held.values())
        if held:
            rows[f"{name}."] = Layer(", ".join(held), "Parameter", NO_SHAPE, sum(p.numel() for p in held.values()))
    order = list(modules)
    return [rows[key] for key in sorted(rows, key=lambda key: order.index(key.removesuffix(".")))]
