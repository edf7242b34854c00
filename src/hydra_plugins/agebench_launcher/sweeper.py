"""Hydra's basic sweeper without its own composition of every point, which the launcher repeats."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from hydra_plugins.agebench_launcher.launcher import AgebenchLauncher


class AgebenchSweeper(BasicSweeper):
    """Runs all combinations of the values. `agebench.sweep.hydra_callback` replaces Hydra's basic sweeper with it."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose every point before the first one starts, unless the launcher does this itself."""
        if not isinstance(self.launcher, AgebenchLauncher):
            super().validate_batch_is_legal(batch)
