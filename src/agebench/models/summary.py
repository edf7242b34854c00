"""The layers of a network with their output shapes and numbers of parameters, as a text table."""

from typing import Any

import torch
from torch import Tensor, nn

from agebench.text import align_columns

MAX_ROWS = 40


def summarise_model(model: nn.Module, image_shape: tuple[int, int, int]) -> str:
    """Run a blank image through a network, and return a table of the layers that are used.

    A network with more than MAX_ROWS leaf layers is listed by block.

    Args:
        model: Maps float images (B, C, S, S) to (B, K).
        image_shape: (C, S, S).

    Returns:
        One line `layer (Type)  output shape  parameters` per layer, and the totals. B is the batch dimension.
    """
    shapes: dict[str, str] = {}

    def shape_hook(name: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
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
    lines = ["  ".join(cells) for cells in align_columns(header, _rows(model, shapes), (False, False, True))]
    total, trainable = count_parameters(model)
    rule = "-" * len(lines[0])
    totals = f"parameters: {total:,} total, {trainable:,} trainable, {total - trainable:,} frozen"
    return "\n".join([lines[0], rule, *lines[1:], rule, totals])


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return the total number of parameters of a network and the number of trainable ones."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def _rows(model: nn.Module, shapes: dict[str, str]) -> list[tuple[str, str, str]]:
    def describe(names: list[tuple[str, nn.Module]]) -> list[tuple[str, str, str]]:
        counts = [sum(p.numel() for p in module.parameters()) for _, module in names]
        return [
            (f"{name} ({type(module).__name__})", shapes.get(name, ""), f"{count:,}")
            for (name, module), count in zip(names, counts, strict=True)
        ]

    used = [(name, module) for name, module in model.named_modules() if name in shapes]
    leaves = [(name, module) for name, module in used if not list(module.children())]
    if len(leaves) <= MAX_ROWS:
        return describe(leaves)
    for depth in (3, 2):
        blocks = [
            (n, m) for n, m in used if n.count(".") + 1 == depth or (n.count(".") + 1 < depth and not [*m.children()])
        ]
        if len(blocks) <= MAX_ROWS:
            return describe(blocks)
    return describe(list(model.named_children()))
