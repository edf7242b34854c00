"""`python -m agebench.export`: write a trained run as one file that does not need agebench."""

from typing import Any

from agebench.cli.main import announce_loading
from agebench.cli.main import main as run_command


def export(cfg: Any) -> None:
    """Export a run as a composed config describes."""
    from omegaconf import OmegaConf

    from agebench.build.keys import ExportKeys
    from agebench.cli.rules import check_config
    from agebench.errors import UserError
    from agebench.runs.members import find_members

    if OmegaConf.is_missing(cfg, "run"):
        raise UserError("export needs a trained run: run=outputs/...")
    check_config(cfg, ExportKeys)
    find_members(cfg.run, quiet=True)  # raises before the slow imports
    announce_loading()
    from agebench.inference.export import export_run

    export_run(cfg)


def main() -> None:
    """Run the command."""
    run_command("export", export, config_name="export")


if __name__ == "__main__":
    main()
