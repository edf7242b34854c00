"""format=safetensors: timm loads the weights and the folder, and has the outputs of the checkpoint."""

import json
from pathlib import Path

import pytest
import timm
import torch


def test_timm_loads_the_weights_and_the_folder_with_the_outputs_of_the_checkpoint(command) -> None:
    net = ("model=timm", "model.model_name=test_resnet.r160_in1k", "+model.drop_rate=0.1", "data.image_size=32")
    command("train", "data=digits", *net, "trainer.max_epochs=1", "data.limit=300", "report=false", "hydra.run.dir=run")
    command("export", "run=run", "format=safetensors", "output=hub/model.safetensors")

    stored = torch.load("run/checkpoints/best.ckpt", weights_only=True, map_location="cpu")["state_dict"]
    trained = timm.create_model("test_resnet", in_chans=1, num_classes=10)
    trained.load_state_dict({key[6:]: value for key, value in stored.items() if key.startswith("model.")})
    images = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    own = timm.create_model("test_resnet", in_chans=1, num_classes=10, checkpoint_path="hub/model.safetensors")
    folder = timm.create_model("local-dir:hub", pretrained=True)
    with torch.no_grad():
        expected = trained.eval()(images)
        assert torch.equal(own.eval()(images), expected)
        assert torch.equal(folder.eval()(images), expected)
    assert folder.pretrained_cfg["mean"] == pytest.approx(stored["normalise.mean"].flatten().tolist(), abs=1e-6)
    assert folder.pretrained_cfg["input_size"] in ([1, 32, 32], (1, 32, 32))
    card = Path("hub/README.md").read_text(encoding="utf-8")
    results = json.loads(Path("run/results.json").read_text(encoding="utf-8"))
    accuracy, (low, high) = (results[each]["test/accuracy"] for each in ("metrics", "intervals"))
    assert f"| test/accuracy | {accuracy:.4f} [{low:.4f}, {high:.4f}] |" in card
    assert card.startswith("---\nlibrary_name: timm\n")


def test_a_network_that_timm_does_not_have_is_one_sentence(command, capsys) -> None:
    command("train", "data=digits", "model=mlp", "trainer.max_epochs=1", "report=false", "hydra.run.dir=run")

    with pytest.raises(SystemExit):
        command("export", "run=run", "format=safetensors", "output=hub/model.safetensors")

    assert (
        "format=safetensors needs a network of timm, and that of the run is agebench.models" in capsys.readouterr().err
    )
    assert not Path("hub").exists()
