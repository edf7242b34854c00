"""The arrays of a full report of a trained run, which need its network and its data."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from agebench.build.checkpoint import read_checkpoint
from agebench.build.data import LOADED
from agebench.build.module import build_trained
from agebench.data.datamodule import ImageDataModule
from agebench.data.split import PARTS
from agebench.errors import UserError
from agebench.inference.evaluate import test
from agebench.inference.evaluation_data import prepare
from agebench.report_arrays import FeatureRecorder, choose_rows, write_arrays
from agebench.runs.folder import read_results


def write_full_arrays(cfg: DictConfig, run_dir: Path) -> None:
    """Test the network of a run again, and write its features and images into report/.

    Args:
        cfg: The composed config of the command: `accelerator`, `trust`.
        run_dir: The run directory.

    Raises:
        UserError: If the run has no checkpoint, or its data is not here or has changed.
    """
    results = read_results(run_dir)
    if "run" in results or "scored" in results:
        raise UserError(f"level=full needs a trained run, and {run_dir} only holds test results: set level=light")
    _, stored, config = read_checkpoint(run_dir, "tested", results, trust=cfg.trust)
    own = OmegaConf.create({"accelerator": cfg.accelerator, "precision": None})
    evaluation = prepare(own, config, stored["agebench"], run_dir=run_dir, user_keys=())
    module = build_trained(config, stored)
    with FeatureRecorder(module, choose_rows(len(evaluation.plan.split.test))) as recorder:
        predictions = test(own, config, evaluation, module, run_dir, part="test")
    loading = {key: config.data[key] for key in LOADED} | {"residency": "mapped"}
    data = ImageDataModule(evaluation.images, seed=config.seed, **loading)
    recorded = recorder.features(predictions)
    write_arrays(run_dir, module, data, predictions=predictions, recorded=recorded, parts=PARTS)
