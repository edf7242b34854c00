"""Average the weights of trained networks."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

State = Mapping[str, Tensor]


def average_weights(states: Sequence[State]) -> dict[str, Tensor]:
    """Return the mean of each floating-point tensor, computed in float64, and the other tensors of the first state.

    Running means and variances of batch norm are averaged too. Its counters of batches are not.

    Args:
        states: State dicts of the same architecture.
    """
    return {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[0].items()
    }


def greedy_soup(
    states: Sequence[State], cost: Callable[[dict[str, Tensor]], float]
) -> tuple[list[int], list[float], float]:
    """Choose the states whose mean is best on val.

    The states are tried from the best to the worst. Each is kept if the mean with it does not have a higher cost.

    Args:
        states: State dicts of the same architecture.
        cost: Returns the cost of a state on val.

    Returns:
        The positions of the chosen states in the order in which they were added, the cost of each state, and the cost
        of the mean of the chosen ones.

    Source:
        Wortsman et al. (2022), "Model soups", ICML, arXiv:2203.05482, the greedy soup.
    """
    costs = [cost(dict(state)) for state in states]
    order = sorted(range(len(states)), key=lambda i: costs[i])
    chosen, lowest = order[:1], costs[order[0]]
    for i in order[1:]:
        found = cost(average_weights([states[j] for j in (*chosen, i)]))
        if found <= lowest:
            chosen, lowest = [*chosen, i], found
    return chosen, costs, lowest
