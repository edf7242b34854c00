"""Parameter groups of an optimizer: no weight decay where it does not help, and lower rates for early layers."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from typing import Any

from timm.models import group_parameters as group_by_matcher
from torch import nn

COLUMNS = ("name", "shape", "parameters", "trainable", "lr", "weight_decay", "first_epoch")  # of params.csv
Row = tuple[str, str, int, bool, float | str, float | str, int | str]


def group_parameters(
    model: nn.Module,
    head: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    decay_norms: bool = False,
    scales: Mapping[str, float] | None = None,
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
        scales: Rates of parameters of the network, by name, as shares of `lr`; the others have `lr`.
    """
    scales = scales or {}
    exempt: Any = getattr(model, "no_weight_decay", set)()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for owner in (model, head):
        for name, parameter in owner.named_parameters():
            if not parameter.requires_grad:
                continue
            scale = 1.0 if owner is head else scales.get(name, 1.0)
            plain = parameter.ndim <= 1 or owner is head or any(fnmatch(name, each) for each in exempt)
            decay = 0.0 if plain and not decay_norms else weight_decay
            groups.setdefault((lr * scale, decay), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda item: (-item[0][0], -item[0][1]))
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in ordered]


def split_by_epoch(groups: Iterable[dict[str, Any]], first_epochs: Mapping[int, int]) -> list[dict[str, Any]]:
    """Split groups whose parameters are trained from different epochs on.

    A fused optimizer needs the same state for all parameters of a group.

    Args:
        groups: Parameter groups.
        first_epochs: The epoch, from 0, from which a parameter is trained, by its identity, unless it is 0.
    """
    found = []
    for group in groups:
        parts: dict[int, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            parts.setdefault(first_epochs.get(id(parameter), 0), []).append(parameter)
        found += [{**group, "params": part} for _, part in sorted(parts.items())]
    return found


def layer_scales(model: nn.Module, layer_decay: float) -> dict[str, float]:
    """Return shares of the rate that fall from the output to the input: layer_decay to the number of later layers.

    Args:
        model: The network.
        layer_decay: The rate of each layer divided by that of the next one, in (0, 1].

    Source:
        Bao, Dong, Piao, Wei (2022), BEiT, arXiv:2106.08254.
    """
    layers = layer_numbers(model)
    last = max(layers.values(), default=0)
    return {name: layer_decay ** (last - number) for name, number in layers.items()}


def layer_numbers(model: nn.Module, *, coarse: bool = False) -> Mapping[str, int]:
    """Return the number of the layer of each parameter, from the input to the output.

    The layers of timm's networks are those of timm's `group_matcher`; with `coarse` they are its stages. Without it, a
    layer is a child of the network or of an nn.Sequential in it, with weights, and what follows it, such as its norm. A
    block with parallel branches is one layer.
    """
    matcher: Any = getattr(model, "group_matcher", None)
    if matcher is not None:
        found: dict[str, int] = group_by_matcher(model, matcher(coarse=coarse), reverse=True)
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
    named: Iterable[tuple[str, nn.Parameter]],
    groups: Iterable[Mapping[str, Any]],
    *,
    lr: float,
    weight_decay: float,
    first_epochs: Mapping[str, int],
) -> list[Row]:
    """Return a row of COLUMNS for each parameter; the last three are empty for frozen ones.

    Args:
        named: Names and parameters.
        groups: The groups of the optimizer.
        lr: The rate of groups without one.
        weight_decay: The weight decay of groups without one.
        first_epochs: The epoch, from 0, from which a parameter is trained, by name, unless it is 0.
    """
    settings: dict[int, tuple[float | str, float | str]] = {
        id(parameter): (group.get("lr", lr), group.get("weight_decay", weight_decay))
        for group in groups
        for parameter in group["params"]
    }
    rows: list[Row] = []
    for name, p in named:
        rate, decay = settings.get(id(p), ("", ""))
        first: int | str = first_epochs.get(name, 0) if p.requires_grad else ""
        rows.append((name, "x".join(map(str, p.shape)) or "1", p.numel(), p.requires_grad, rate, decay, first))
    return rows


def describe_groups(rows: Iterable[Row]) -> str:
    """Return a line about the rates and the weight decay of the trainable parameters; empty if all have the same."""
    counts: Counter[tuple[Any, Any]] = Counter()
    for _, _, size, trainable, rate, decay, _ in rows:
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


def describe_first_epochs(rows: Iterable[Row]) -> str:
    """Return a line about what is frozen, never or in the first epochs; empty if all parameters are always trained."""
    sizes: Counter[int] = Counter()
    frozen = 0
    for _, _, size, trainable, _, _, first in rows:
        if trainable:
            sizes[int(first)] += size
        else:
            frozen += size
    if not frozen and len(sizes) < 2:
        return ""
    parts = [f"{size:,} parameters from epoch {first + 1} on" for first, size in sorted(sizes.items())]
    return ", ".join([*parts, *([f"{frozen:,} are frozen"] if frozen else [])])
