"""Parameter groups of an optimizer: no weight decay where it does not help, and lower rates for early layers."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from typing import Any

from timm.models import group_parameters as group_by_matcher
from torch import nn

COLUMNS = ("name", "shape", "parameters", "trainable", "lr", "weight_decay")  # of params.csv
Row = tuple[str, str, int, bool, float | str, float | str]


def group_parameters(
    model: nn.Module,
    head: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    decay_norms: bool = False,
    layer_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Return the trainable parameters in groups with their own rate and weight decay, the highest rate first.

    Biases, the parameters of norms and those that timm names in `no_weight_decay`, such as tables of positions, have no
    weight decay. The parameters of the head are neither weights of layers nor decayed.

    Args:
        model: The network.
        head: The head.
        lr: The rate of the classifier.
        weight_decay: The weight decay of the other parameters.
        decay_norms: Whether all parameters are decayed.
        layer_decay: The rate of each layer divided by that of the next one, in (0, 1]; None: all layers have one rate.

    Source:
        Bao, Dong, Piao, Wei (2022), BEiT, arXiv:2106.08254, for `layer_decay`; the layers of timm's networks are those
        of timm's `group_matcher`.
    """
    layers = _layers(model) if layer_decay is not None else {}
    last = max(layers.values(), default=0)
    exempt: Any = getattr(model, "no_weight_decay", set)()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for owner in (model, head):
        for name, parameter in owner.named_parameters():
            if not parameter.requires_grad:
                continue
            scale = 1.0 if layer_decay is None or owner is head else layer_decay ** (last - layers.get(name, last))
            plain = parameter.ndim <= 1 or owner is head or any(fnmatch(name, each) for each in exempt)
            decay = 0.0 if plain and not decay_norms else weight_decay
            groups.setdefault((lr * scale, decay), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda item: (-item[0][0], -item[0][1]))
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in ordered]


def _layers(model: nn.Module) -> Mapping[str, int]:
    """Return the number of the layer of each parameter, from the input to the output.

    Without a `group_matcher`, a layer is a child of the network or of an nn.Sequential in it, with weights, and what
    follows it, such as its norm. A block with parallel branches is one layer.
    """
    matcher: Any = getattr(model, "group_matcher", None)
    if matcher is not None:
        found: dict[str, int] = group_by_matcher(model, matcher(coarse=False), reverse=True)
        return found
    layers: dict[str, int] = {}
    number = -1
    for path, block in _blocks("", model):
        own = list(block.named_parameters())
        number += any(parameter.ndim > 1 for _, parameter in own)
        layers |= {f"{path}.{name}".strip("."): max(number, 0) for name, _ in own}
    return layers


def _blocks(path: str, module: nn.Module, *, root: bool = True) -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts of a network that follow one another: its children, and those of each nn.Sequential."""
    children = list(module.named_children())
    if not children or not (root or isinstance(module, nn.Sequential)):
        yield path, module
    for name, child in children if root or isinstance(module, nn.Sequential) else ():
        yield from _blocks(f"{path}.{name}".strip("."), child, root=False)


def tabulate_parameters(
    named: Iterable[tuple[str, nn.Parameter]], groups: Iterable[Mapping[str, Any]], *, lr: float, weight_decay: float
) -> list[Row]:
    """Return a row of COLUMNS for each parameter; the last two are empty for frozen ones.

    Args:
        named: Names and parameters.
        groups: The groups of the optimizer.
        lr: The rate of groups without one.
        weight_decay: The weight decay of groups without one.
    """
    settings: dict[int, tuple[float | str, float | str]] = {
        id(parameter): (group.get("lr", lr), group.get("weight_decay", weight_decay))
        for group in groups
        for parameter in group["params"]
    }
    return [
        (name, "x".join(map(str, p.shape)) or "1", p.numel(), p.requires_grad, *settings.get(id(p), ("", "")))
        for name, p in named
    ]


def describe_groups(rows: Iterable[Row]) -> str:
    """Return a line about the rates and the weight decay of the trainable parameters; empty if all have the same."""
    counts: Counter[tuple[Any, Any]] = Counter()
    for _, _, size, trainable, rate, decay in rows:
        if trainable:
            counts[rate, decay] += size
    if len(counts) < 2:
        return ""
    parts = []
    rates = sorted({rate for rate, _ in counts})
    if len(rates) > 1:
        parts.append(f"{len(rates)} rates from {rates[0]:.3g} (first layer) to {rates[-1]:.3g} (classifier)")
    decays = sorted({decay for _, decay in counts}, reverse=True)
    if len(decays) > 1:
        exempt = sum(size for (_, decay), size in counts.items() if decay == decays[-1])
        parts.append(f"weight decay {decays[0]:.3g}, none on {exempt:,} parameters (biases, norms, positions)")
    return "; ".join(parts)
