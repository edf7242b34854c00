"""`python -m agebench.predict`: ages or classes for images that nobody has labelled, by a trained run."""

from typing import Any

from agebench.cli.main import main as run_verb


def predict(cfg: Any) -> None:
    """Predict by a composed config, and write the answers as a table."""
    from omegaconf import OmegaConf

    from agebench.cli.rules import RUN_RULES, check_rules
    from agebench.errors import UserError

    for key, needed in (("run", "a trained run: run=outputs/..."), ("images", "images: images=FOLDER")):
        if OmegaConf.is_missing(cfg, key):
            raise UserError(f"predict needs {needed}")
    check_rules(cfg, RUN_RULES)
    from agebench.inference.predict import predict_images

    predict_images(cfg)


def main() -> None:
    """Run the verb."""
    run_verb("predict", predict, config_name="predict")


if __name__ == "__main__":
    main()
