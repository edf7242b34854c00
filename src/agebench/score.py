"""`python -m agebench.score`: test the predictions of any program, given as a CSV file."""

import re
import sys
from pathlib import Path
from typing import Any

from agebench.cli.main import main as run_command


def score(cfg: Any) -> None:
    """Score the file of a composed config, and write a run folder."""
    from hydra.core.hydra_config import HydraConfig

    from agebench.build.keys import ScoreKeys
    from agebench.cli.rules import check_config
    from agebench.errors import UserError

    if cfg.get("data") is None:
        raise UserError("score needs a data set, whose test images were predicted: data=NAME")
    check_config(cfg, ScoreKeys)
    from agebench.build.data import build_planner
    from agebench.runs.foreign_sheet import read_sheet
    from agebench.runs.score import score_sheet

    sheet = read_sheet(Path(str(cfg.predictions)).expanduser())
    plan = build_planner(cfg).plan(listed=cfg.listed)
    score_sheet(cfg, sheet, plan, Path(HydraConfig.get().runtime.output_dir), name=name_of(cfg))


def name_of(cfg: Any) -> str:
    """Return the name of the model: `name`, or the name of the file."""
    return Path(str(cfg.predictions)).stem if cfg.name is None else str(cfg.name)


def folder_name(cfg: Any) -> str:
    """Return the names of the data and of the model as folder names."""
    try:
        names = (str(cfg.data.name), name_of(cfg))
    except Exception:  # the command reports what is wrong with the config
        return "scored"
    return "/".join(re.sub(r"[^\w.\-]+", "-", name).strip(".-")[:100] or "scored" for name in names)


def main() -> None:
    """Run the command."""
    if not {"--help", "-h"} & set(sys.argv[1:]):  # which answers without this import
        from omegaconf import OmegaConf

        OmegaConf.register_new_resolver("agebench.scored", lambda *, _root_: folder_name(_root_), replace=True)
    run_command("score", score, config_name="score")


if __name__ == "__main__":
    main()
