"""Tests that run for every file in conf/head, also for new ones."""

import inspect
from pathlib import Path

import pytest
import torch
from hydra.utils import get_object
from omegaconf import OmegaConf

from agebench.errors import UserError
from agebench.testing import check_head

FOLDER = Path(__file__).parents[2] / "conf" / "head"
HEADS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
every_head = pytest.mark.parametrize("name", HEADS)


@every_head
def test_the_yaml_starts_with_a_comment_and_lists_every_option(name) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    config = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    labels, values, *options = inspect.signature(get_object(config["_target_"])).parameters.values()

    assert text.startswith("# ")
    assert 10 < len(text.splitlines()[0]) <= 92
    assert (labels.name, values.name) == ("num_labels", "values")
    assert config["decode"] == "auto"
    assert set(config) - {"_target_"} == {option.name for option in options} - {"ordered"}
    for option in options:
        assert option.kind is inspect.Parameter.KEYWORD_ONLY
        assert option.name == "ordered" or config[option.name] == option.default


@every_head
def test_a_head_keeps_the_contract_for_all_label_sets_that_it_supports(name) -> None:
    options = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))

    supported = check_head(options.pop("_target_"), **options)

    assert supported == (["two"] if name == "binary" else ["ages", "decades", "bins", "uneven", "two"])


@every_head
def test_a_single_label_raises_an_error_except_for_softmax(name) -> None:
    options = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    head = get_object(options.pop("_target_"))

    if name == "softmax":
        assert head(1, [20.0], ordered=True, **options).point(torch.zeros(1, 1)).tolist() == [20.0]
    else:
        with pytest.raises(UserError, match=r"only one|this target has 1"):
            head(1, [20.0], ordered=True, **options)
