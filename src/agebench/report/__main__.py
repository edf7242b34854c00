"""`python -m agebench.report`: make the page and the pictures of a run, or make them again. Nothing is trained."""

from typing import Any

from agebench.cli.main import announce_loading
from agebench.cli.main import main as run_command


def report(cfg: Any) -> None:
    """Make the reports of the runs that a composed config names."""
    import logging

    from omegaconf import OmegaConf

    from agebench.build.keys import ReportKeys
    from agebench.cli.rules import check_config
    from agebench.errors import UserError

    if OmegaConf.is_missing(cfg, "run"):
        raise UserError("report needs a run: run=outputs/...")
    check_config(cfg, ReportKeys)
    from agebench.pages.drawer import make_report, page_of
    from agebench.runs.members import reported_runs

    log = logging.getLogger("agebench.report")
    folders = reported_runs(cfg.run)
    if cfg.level == "full":
        announce_loading()
        from agebench.inference.report import write_full_arrays

        for folder in folders:
            write_full_arrays(cfg, folder)
    for folder in folders:
        log.info("drawing the pictures of %s", folder)
        try:
            make_report(folder, level=cfg.level)
        except OSError as error:
            raise UserError(f"cannot write the report of {folder}: {error.strerror or error}") from error
        log.info("page      %s", page_of(folder).as_uri())


def main() -> None:
    """Run the command."""
    run_command("report", report, config_name="report")


if __name__ == "__main__":
    main()
