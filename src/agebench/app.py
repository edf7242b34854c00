"""`python -m agebench.app`: a page on this machine that shows what trained runs predict for a photo."""

from typing import Any

from agebench.cli.main import announce_loading
from agebench.cli.main import main as run_command


def app(cfg: Any) -> None:
    """Serve the page until the command is interrupted."""
    from omegaconf import OmegaConf

    from agebench.build.keys import AppKeys
    from agebench.cli.rules import check_config
    from agebench.errors import UserError
    from agebench.runs.members import find_members

    if OmegaConf.is_missing(cfg, "run"):
        raise UserError("app needs a trained run: run=outputs/...")
    check_config(cfg, AppKeys)
    find_members(cfg.run, quiet=True)  # raises before the slow imports
    announce_loading()
    from agebench.inference.app_server import serve

    serve(cfg)


def main() -> None:
    """Run the command."""
    run_command("app", app, config_name="app")


if __name__ == "__main__":
    main()
