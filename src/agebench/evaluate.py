"""`python -m agebench.evaluate`: test a trained run again, or on another data set with the same labels."""

from typing import Any

from agebench.cli import main as run_verb


def evaluate(cfg: Any) -> None:
    """Test by a composed config, and write the figures beside the run."""
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig

    from agebench.errors import UserError

    if not cfg.run or str(cfg.run) == "???":
        raise UserError("evaluate needs a trained run: run=outputs/...")
    from agebench.retest import retest

    retest(cfg, Path(HydraConfig.get().runtime.output_dir))


def main() -> None:
    """Run the verb."""
    run_verb("evaluate", evaluate, config_name="evaluate")


if __name__ == "__main__":
    main()
