"""`python -m agebench.predict`: predict ages or classes of unlabelled images with a trained run."""

from typing import Any

from agebench.cli.main import announce_loading
from agebench.cli.main import main as run_command


def predict(cfg: Any) -> None:
    """Predict as a composed config describes, and write the predictions as CSV."""
    from pathlib import Path

    from omegaconf import OmegaConf

    from agebench.build.keys import PredictKeys
    from agebench.cli.rules import check_config
    from agebench.data.readers.folders import check_exists
    from agebench.errors import UserError
    from agebench.runs.members import find_members

    for key, needed in (("run", "a trained run: run=outputs/..."), ("images", "images: images=FOLDER")):
        if OmegaConf.is_missing(cfg, key):
            raise UserError(f"predict needs {needed}")
    check_config(cfg, PredictKeys)
    find_members(cfg.run, quiet=True)  # raises before the slow imports
    check_exists(Path(str(cfg.images)).expanduser())
    if (output := Path(str(cfg.output)).expanduser()).exists():
        raise UserError(f"{output} already exists: set another output=, or delete it")
    announce_loading()
    from agebench.inference.predict import predict_images

    predict_images(cfg)


def main() -> None:
    """Run the command."""
    run_command("predict", predict, config_name="predict")


if __name__ == "__main__":
    main()
