"""The layers of a network with their output shapes and parameters, as a table of text."""

from typing import Any

import torch
from torch import Tensor, nn

MAX_ROWS = 40


def summarise_model(model: nn.Module, image_shape: tuple[int, int, int]) -> str:
    """Run one blank image through a network and describe what it met, in order.

    Leaf layers are listed one by one; a network with more than MAX_ROWS of them is listed block by block.

    Args:
        model: Float images (B, C, S, S) -> (B, K).
        image_shape: (C, S, S).

    Returns:
        Lines of `layer (Type)  output shape  parameters` and the totals. The batch dimension is written as B.
    """
    shapes: dict[str, str] = {}

    def remember(name: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                shapes[name] = str(("B", *output.shape[1:])).replace("'", "")

        return hook

    named = [(name, module) for name, module in model.named_modules() if name]
    hooks = [module.register_forward_hook(remember(name)) for name, module in named]
    modes = [(module, module.training) for module in model.modules()]
    parameter = next(model.parameters())
    try:
        with torch.no_grad():
            model.eval()(torch.zeros((1, *image_shape), device=parameter.device))
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:  # each its own: a frozen part stays in evaluation mode
            module.training = training

    rows = _rows(model, shapes)
    table = [("layer (type)", "output shape", "parameters"), *rows]
    widths = [max(len(row[i]) for row in table) for i in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in table]
    total, trainable = count_parameters(model)
    rule = "-" * len(lines[0])
    totals = f"parameters: {total:,} in all, {trainable:,} trainable, {total - trainable:,} frozen"
    return "\n".join([lines[0], rule, *lines[1:], rule, totals])


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return how many numbers a network holds as parameters, and how many of them train."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def _rows(model: nn.Module, shapes: dict[str, str]) -> list[tuple[str, str, str]]:
    def describe(names: list[tuple[str, nn.Module]]) -> list[tuple[str, str, str]]:
        counts = [sum(p.numel() for p in module.parameters()) for _, module in names]
        return [
            (f"{name} ({type(module).__name__})", shapes.get(name, ""), f"{count:,}")
            for (name, module), count in zip(names, counts, strict=True)
        ]

    met = [(name, module) for name, module in model.named_modules() if name in shapes]
    leaves = [(name, module) for name, module in met if not list(module.children())]
    if len(leaves) <= MAX_ROWS:
        return describe(leaves)
    for depth in (3, 2):
        blocks = [
            (n, m) for n, m in met if n.count(".") + 1 == depth or (n.count(".") + 1 < depth and not [*m.children()])
        ]
        if len(blocks) <= MAX_ROWS:
            return describe(blocks)
    return describe(list(model.named_children()))
