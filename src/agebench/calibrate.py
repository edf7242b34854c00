"""`python -m agebench.calibrate`: fit a temperature and conformal label sets on the val part of a trained run."""

from typing import Any

from agebench.cli.main import announce_loading
from agebench.cli.main import main as run_command


def calibrate(cfg: Any) -> None:
    """Calibrate a run as a composed config describes, and write calibration.json into it."""
    import logging
    from pathlib import Path

    from omegaconf import OmegaConf

    from agebench.build.keys import CalibrateKeys
    from agebench.cli.rules import check_config
    from agebench.errors import UserError
    from agebench.runs.folder import read_results

    if OmegaConf.is_missing(cfg, "run"):
        raise UserError("calibrate needs a trained run: run=outputs/...")
    check_config(cfg, CalibrateKeys)
    read_results(Path(str(cfg.run)).expanduser())  # raises before the slow imports
    announce_loading()
    from agebench.inference.calibrate import calibrate_run
    from agebench.pages.drawer import rewrite_page

    calibrate_run(cfg)
    try:
        page = rewrite_page(Path(str(cfg.run)).expanduser())
    except OSError as error:
        raise UserError(f"calibrated, but the page cannot be written: {error.strerror or error}") from error
    if page is not None:
        logging.getLogger("agebench.calibrate").info("page      %s", page.as_uri())


def main() -> None:
    """Run the command."""
    run_command("calibrate", calibrate, config_name="calibrate")


if __name__ == "__main__":
    main()
