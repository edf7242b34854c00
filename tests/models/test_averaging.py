"""The averages of weights, against float64 arithmetic."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from agebench.errors import UserError
from agebench.models.averaging import EpochAverage, WeightAverage


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def train(module: nn.Module, average: WeightAverage, steps: int) -> list[dict[str, np.ndarray]]:
    """Take steps, and return the floats of the module after each."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5, momentum=0.9)
    states = []
    for _ in range(steps):
        module.train()
        optimizer.zero_grad()
        module(torch.randn(8, 3)).square().sum().backward()
        optimizer.step()
        average.update()
        floats = {k: v for k, v in module.state_dict().items() if v.is_floating_point()}
        states.append({k: v.double().numpy().copy() for k, v in floats.items()})
    return states


def test_the_average_is_the_weighted_sum_of_all_steps_with_a_warmed_up_decay() -> None:
    module = network()
    expected = {k: v.double().numpy().copy() for k, v in module.state_dict().items() if v.is_floating_point()}
    average = WeightAverage(module, 0.4)

    states = train(module, average, 12)
    average.exchange(evaluate=True)

    for step, state in enumerate(states, start=1):
        decay = min(0.4, (1 + step) / (10 + step))  # 2/11, 3/12, 4/13, ... and 0.4 from step 5 on
        expected = {k: decay * expected[k] + (1 - decay) * state[k] for k in expected}
    for name, value in expected.items():
        np.testing.assert_allclose(module.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert module[1].num_batches_tracked.item() == 12


def test_a_single_number_is_averaged_and_integers_are_not() -> None:
    module = nn.Module()
    module.scale = nn.Parameter(torch.tensor(1.0))
    module.register_buffer("counts", torch.tensor([1, 1]))
    average = WeightAverage(module, 0.1)

    module.scale.data.fill_(3.0)
    module.counts.fill_(9)
    average.update()
    average.exchange(evaluate=True)

    assert module.scale.item() == pytest.approx(0.1 * 1.0 + 0.9 * 3.0)
    assert module.counts.tolist() == [9, 9]


def test_training_continues_with_the_trained_weights() -> None:
    module = network()
    average = WeightAverage(module, 0.9)
    last = train(module, average, 3)[-1]

    average.exchange(evaluate=True)
    average.exchange(evaluate=True)
    average.exchange(evaluate=False)

    for name, value in last.items():
        np.testing.assert_array_equal(module.state_dict()[name].double(), value)


@pytest.mark.parametrize("evaluates", [False, True])
def test_a_checkpoint_has_the_average_and_restores_both(evaluates) -> None:
    module = network()
    average = WeightAverage(module, 0.9)
    train(module, average, 3)
    trained = copy.deepcopy(module.state_dict())
    average.exchange(evaluate=evaluates)
    checkpoint = {"state_dict": module.state_dict()}

    average.to_checkpoint(checkpoint)
    average.exchange(evaluate=True)
    averaged = copy.deepcopy(module.state_dict())
    average.exchange(evaluate=evaluates)
    stored = copy.deepcopy(checkpoint)

    assert all(torch.equal(stored["state_dict"][k], averaged[k]) for k in averaged)
    other = network()
    restored = WeightAverage.from_checkpoint(stored)
    other.load_state_dict(stored["state_dict"])
    assert all(torch.equal(other.state_dict()[k], trained[k]) for k in trained)
    again = WeightAverage(other, 0.9)
    again.restore(restored)
    again.exchange(evaluate=True)
    assert all(torch.equal(other.state_dict()[k], averaged[k]) for k in averaged)
    assert again.updates == 3


def test_half_precision_is_refused() -> None:
    with pytest.raises(UserError, match="needs weights in float32"):
        WeightAverage(network().bfloat16(), 0.9)


def test_the_average_of_epochs_is_the_mean_of_their_ends_from_the_start_on() -> None:
    module = network()
    average = EpochAverage(module, start=0.5)
    ends, updated = [], []

    for epoch in range(1, 7):
        train(module, WeightAverage(copy.deepcopy(module), 0.5), 2)
        ends.append({k: v.double().numpy().copy() for k, v in module.state_dict().items()})
        updated.append(average.end_epoch(epoch / 6))
    average.exchange(evaluate=True)

    assert updated == [False, False, True, True, True, True]
    for name, value in module.state_dict().items():
        kept = [end[name] for end in ends[2:]]
        expected = np.mean(kept, axis=0) if value.is_floating_point() else kept[-1]  # counters are not averaged
        np.testing.assert_allclose(value.double(), expected, rtol=1e-5, atol=1e-7)


def test_before_its_start_the_module_and_the_checkpoint_have_the_trained_weights() -> None:
    module = network()
    average = EpochAverage(module, start=0.5)
    train(module, WeightAverage(copy.deepcopy(module), 0.5), 2)
    trained = copy.deepcopy(module.state_dict())
    checkpoint = {"state_dict": module.state_dict()}

    average.end_epoch(0.4)
    average.exchange(evaluate=True)
    average.to_checkpoint(checkpoint)

    for state in (module.state_dict(), checkpoint["state_dict"]):
        assert all(torch.equal(state[name], tensor) for name, tensor in trained.items())


def test_the_first_epoch_of_the_average_is_kept_exactly() -> None:
    module = network()
    average = EpochAverage(module, start=0.0)
    train(module, WeightAverage(copy.deepcopy(module), 0.5), 2)
    trained = copy.deepcopy(module.state_dict())

    average.end_epoch(0.25)
    average.exchange(evaluate=True)

    assert all(torch.equal(tensor, trained[name]) for name, tensor in module.state_dict().items())
