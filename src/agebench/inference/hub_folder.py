"""Export of a timm network in the format of the Hugging Face Hub: model.safetensors, config.json and README.md.

timm loads the folder, and trains it further, without agebench.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from agebench.errors import UserError
from agebench.identity_groups import resampled
from agebench.leakage.seen_in_training import leak_sentence
from agebench.runs.description import unknown_people
from agebench.runs.predictions_csv import unit_of
from agebench.runs.read import mapping, number

NOT_ARGUMENTS = ("_target_", "model_name", "pretrained", "checkpoint_path", "freeze")
FROM_TIMM = ("first_conv", "classifier", "pool_size", "fixed_input_size")  # of pretrained_cfg: names of layers, sizes
CARD = """---
library_name: timm
pipeline_tag: image-classification
tags: [image-classification, timm, agebench]
---

# {architecture}, trained with agebench

| | |
|---|---|
| protocol | {protocol} |
| labels | {labels} |
| head | {head} |
{metrics}
{notes}
```python
import timm

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
```

The outputs are those of the network. {outputs} `{about}` describes the input and the labels.
"""


def hub_config(config: DictConfig, network: nn.Module, *, num_outputs: int, normalise: nn.Module) -> dict[str, Any]:
    """Return the content of config.json, from which timm creates the network.

    Args:
        config: The composed config of the run.
        network: The network.
        num_outputs: K, the number of its outputs.
        normalise: The module with the `mean` and the `std` of each channel.

    Raises:
        UserError: If the network is not one of timm.
    """
    node: Any = OmegaConf.to_container(config.model, resolve=True)
    if node["_target_"] != "timm.create_model":
        raise UserError(
            f"format=safetensors needs a network of timm, and that of the run is {node['_target_']}: use format=onnx "
            "or pt2"
        )
    data, known = config.data, getattr(network, "pretrained_cfg", {})
    arguments = {key: value for key, value in node.items() if key not in NOT_ARGUMENTS}
    return {
        "architecture": str(node["model_name"]).partition(".")[0],
        "num_classes": num_outputs,
        "num_features": getattr(network, "num_features", None),
        "model_args": {**arguments, "in_chans": data.channels},
        "pretrained_cfg": {
            **{key: known[key] for key in FROM_TIMM if key in known},
            "num_classes": num_outputs,
            "input_size": [data.channels, data.image_size, data.image_size],
            "mean": [round(float(value), 7) for value in normalise.mean.flatten()],  # type: ignore[operator]  # a buffer
            "std": [round(float(value), 7) for value in normalise.std.flatten()],  # type: ignore[operator]  # a buffer
            "interpolation": data.interpolation,
            "crop_mode": data.crop_mode,
            "crop_pct": data.crop_pct,
        },
    }


def write_weights(network: nn.Module, path: Path) -> None:
    """Write the weights of a network as a safetensors file."""
    save_file(
        {name: value.clone().contiguous() for name, value in network.state_dict().items()}, path, {"format": "pt"}
    )


def read_network(config: Mapping[str, Any], path: Path) -> nn.Module:
    """Return the network of a config.json with the weights of a safetensors file, as timm creates it."""
    network: nn.Module = timm.create_model(
        config["architecture"], num_classes=config["num_classes"], **config["model_args"]
    )
    network.load_state_dict(load_file(path))
    return network.eval()


def find_difference(network: nn.Module, images: Tensor, config: Mapping[str, Any], path: Path) -> float:
    """Return the largest difference between the outputs of a network and of the one that timm loads from a file."""
    with torch.no_grad():
        return float((read_network(config, path)(images) - network(images)).abs().max())


def model_card(
    config: Mapping[str, Any], description: Mapping[str, Any], results: Mapping[str, Any], **more: str
) -> str:
    """Return the text of README.md, with the test metrics, their 95% intervals and what is known about a leak.

    Args:
        config: The content of config.json.
        description: The JSON description of the export.
        results: The content of results.json.
        more: `head`, `outputs` (what the outputs mean) and `about` (the name of the JSON file).
    """
    labels = list(map(str, description["labels"]))
    shown = ", ".join(labels if len(labels) <= 12 else [*labels[:3], "...", labels[-1]])
    metrics = {name: value for name, value in results.get("metrics", {}).items() if name.startswith("test/")}
    rows = [
        f"| {name} | {value:.4f}{_interval(results, name)} |" for name, value in metrics.items() if value is not None
    ]
    notes = [f"{note[0].upper()}{note[1:]}." for note in _notes(results)]
    return CARD.format(
        architecture=config["architecture"],
        protocol=description["protocol"],
        labels=shown,
        metrics="\n".join(rows),
        notes="".join(f"\n{note}\n" for note in notes),
        **more,
    )


def _interval(results: Mapping[str, Any], name: str) -> str:
    bounds = [number(bound) for bound in results.get("intervals", {}).get(name) or ()]
    return f" [{bounds[0]:.4f}, {bounds[1]:.4f}]" if len(bounds) == 2 and None not in bounds else ""


def _notes(results: Mapping[str, Any]) -> list[str]:
    """Return sentences about the intervals and a leak."""
    about = mapping(results.get("bootstrap"))
    over = resampled(known=about.get("over") == "identity", unit=unit_of(str(results.get("protocol"))))
    notes = [f"in brackets: 95% bootstrap intervals over the test {over}, for this trained model"] if about else []
    if leak := mapping(results.get("leak")):
        return [*notes, f"train and test share people or images; {leak_sentence(leak)}"]
    unknown = unknown_people(results)
    return [*notes, unknown] if unknown else notes
