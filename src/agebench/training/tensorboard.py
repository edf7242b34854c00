"""TensorBoard in the run's own folder, HPARAMS included: one row a run, no sub-runs, no `hp_metric`, no stray file."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard.summary import hparams


class RunTensorBoard(TensorBoardLogger):
    """Lightning's logger, writing right into `save_dir`.

    Args:
        save_dir: The run directory.
    """

    def __init__(self, save_dir: str) -> None:
        # A run's first word must be that it starts: TensorBoard takes the first such word of a run for its beginning,
        # and hides what was lost in an interruption only at the second.
        super().__init__(save_dir, name="", version="", default_hp_metric=False, purge_step=0)

    def go_on(self, step: int) -> None:
        """Hide what an interrupted start of the run wrote at this step and later: it comes again.

        Must be called before anything is written.
        """
        self._kwargs["purge_step"] = step  # for the SummaryWriter, which is made when it is first asked for

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars, without the epoch that Lightning adds to each lot: it would stand above the learning curves."""
        super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)

    @rank_zero_only
    def declare_hparams(self, params: Mapping[str, Any]) -> None:
        """Name a run's hyperparameters, which the HPARAMS page shows beside its scalars.

        Nothing is said of which columns there are: TensorBoard would take one run's word for all runs in a folder, and
        leave out what only others have. Left to itself it shows the hyperparameters of all, those that differ first.
        """
        # torch would write true as the number 1.
        plain = {k: v if isinstance(v, int | float) and not isinstance(v, bool) else str(v) for k, v in params.items()}
        session = hparams(plain, {})[1]
        self.experiment._get_file_writer().add_summary(session)  # SummaryWriter.add_hparams would open a sub-run

    @rank_zero_only
    def finish_hparams(self) -> None:
        """Mark the run as ended well."""
        self.experiment._get_file_writer().add_summary(hparams({}, {})[2])
        self.experiment.flush()

    @rank_zero_only
    def save(self) -> None:
        """Flush; the parent would write a hparams.yaml, and .hydra/config.yaml already tells all."""
        self.experiment.flush()
