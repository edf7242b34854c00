"""Hydra's own sweeper, which does not compose every point a second time."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from hydra_plugins.agebench_launcher.launcher import AgebenchLauncher


class AgebenchSweeper(BasicSweeper):
    """Takes the product of all values. `agebench.sweep.hydra_callback` puts it in the place of Hydra's."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose every point beforehand, unless the launcher is the one that does so itself."""
        if not isinstance(self.launcher, AgebenchLauncher):
            super().validate_batch_is_legal(batch)
