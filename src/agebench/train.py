"""`python -m agebench.train`: train a model, test it, write a run directory."""

from typing import Any

from agebench.cli import main as run_verb


def train(cfg: Any) -> float:
    """Train by a composed config; return the monitored metric's best value, which sweepers optimise."""
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig

    from agebench.check import check_config

    check_config(cfg)
    from agebench.fit import fit

    return fit(cfg, Path(HydraConfig.get().runtime.output_dir))


def main() -> None:
    """Run the verb."""
    run_verb("train", train, config_name="config")


if __name__ == "__main__":
    main()
