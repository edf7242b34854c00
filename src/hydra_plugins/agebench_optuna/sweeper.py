"""Optuna's sweeper with its study stored in the sweep folder. Repeating the command resumes the study."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from agebench.config import config_folder
from agebench.errors import SweepError, UserError
from agebench.runs.identity import config_hash
from agebench.sweep.session import current_sweep

log = logging.getLogger(__name__)


def direction(config: DictConfig) -> str:
    """Return the direction of optimisation of the objective, the best value of the metric `monitor`.

    Args:
        config: The composed config.
    """
    # Imported here, because it imports NumPy, and Hydra imports this file whenever it searches for plugins.
    from agebench.metrics.table import UNITS, main_metric, monitor_mode

    monitor = str(config.monitor)
    if monitor == "auto":
        monitor = f"val/{main_metric(UNITS.get(config.data.target, ''))}"
    return "minimize" if monitor_mode(monitor)[1] == "min" else "maximize"


class TrialLauncher(Launcher):
    """Makes a trial that is refused before it starts a failed trial, so that the search continues.

    The first trial of a study is an exception: its error is raised, because all trials probably have it.

    Args:
        launcher: Runs the trials. Its `launch` raises before the first one has started if one of them is wrong.
    """

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Do nothing, because the launcher has been set up."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run trials and return their outcomes. The value of a failed or refused trial is None."""
        try:
            return self.launcher.launch(job_overrides, initial_job_idx)
        except (UserError, HydraException) as error:
            if len(job_overrides) > 1:
                alone = enumerate(job_overrides, start=initial_job_idx)
                return [self.launch([overrides], index)[0] for index, overrides in alone]
            if initial_job_idx == 0:
                raise
            from agebench.cli.messages import explain

            log.warning("trial %d is refused: %s", initial_job_idx, explain(error, config_folder()))
            current_sweep().refused += 1
            refused = JobReturn()
            refused.status, refused.return_value = JobStatus.COMPLETED, None
            return [refused]


class StudySweeper(Sweeper):
    """Runs Optuna's trials until the study has `n_trials` of them, including those of earlier calls.

    Interrupted trials are enqueued first. The same values give the same folder, where the run is resumed.

    Args:
        options: Those of hydra_plugins.hydra_optuna_sweeper; `direction` may be `auto`, which depends on `monitor`.
    """

    config: DictConfig

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Create Optuna's sweeper."""
        # Imported here because Hydra imports this file to find plugins, and Optuna is an extra.
        from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl

        self.config = config
        if self.options["direction"] == "auto":
            self.options["direction"] = direction(config)
        sweeper: Any = OptunaSweeperImpl(**self.options)
        sweeper.setup(hydra_context=hydra_context, task_function=task_function, config=config)
        sweeper.launcher = TrialLauncher(sweeper.launcher)
        self.sweeper = sweeper

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials that are missing in the study.

        Raises:
            UserError: If the study in this folder belongs to another search.
            SweepError: If no trial was completed.
        """
        import optuna

        optuna.logging.set_verbosity(logging.WARNING)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        if self.sweeper.storage is not None:
            study = optuna.create_study(
                storage=self.sweeper.storage,
                study_name=self.sweeper.study_name,
                directions=self.sweeper._get_directions(),
                load_if_exists=True,
            )
            self._claim(study, self._search(arguments))
            self._resume(study)
            self._seed_again(len(study.trials))
        try:
            self.sweeper.sweep(arguments)
        except ValueError as error:
            if str(error).rstrip(".") not in ("No trials are completed yet", "Record does not exist"):
                raise
            raise SweepError("no trial was completed: the logs in their folders show why") from error

    def _seed_again(self, trials: int) -> None:
        """Change a sampler's fixed seed if the study has trials, because it would propose the first ones again."""
        from hydra.utils import instantiate

        sampler = self.config.hydra.sweeper.sampler
        if trials and sampler.get("seed") is not None:
            self.sweeper.sampler = instantiate(sampler, seed=sampler.seed + trials)

    def _search(self, arguments: list[str]) -> dict[str, str]:
        """Return the settings that all trials of a study share: the fixed part of the config, and the search space."""
        given = [*(f"{key}={value}" for key, value in (self.sweeper.params or {}).items()), *arguments]
        space = {o.get_key_element(): o for o in OverridesParser.create().parse_overrides(given)}
        swept = {key: str(o.input_line).partition("=")[2] for key, o in space.items() if o.is_sweep_override()}
        node = OmegaConf.masked_copy(self.config, [str(key) for key in self.config if key != "hydra"])
        config: Any = OmegaConf.to_container(node, resolve=True)
        return {**swept, "the rest of the config": config_hash(config)}

    def _claim(self, study: Any, search: Mapping[str, str]) -> None:
        before = study.user_attrs.get("search", search)
        changed = sorted(key for key in {*before, *search} if before.get(key) != search.get(key))
        if changed:
            raise UserError(
                f"the study {study.study_name} in {self.sweeper.storage} has another search "
                f"({', '.join(changed)} differs): choose another sweep=NAME"
            )
        study.set_user_attr("search", dict(search))

    def _resume(self, study: Any) -> None:
        """Enqueue interrupted trials again, and set the number of trials that are missing."""
        from optuna.exceptions import ExperimentalWarning
        from optuna.trial import TrialState

        interrupted = study.get_trials(states=(TrialState.RUNNING,))
        enqueued = [*study.user_attrs.get("asked_again", []), *(trial.number for trial in interrupted)]
        study.set_user_attr("asked_again", enqueued)
        for trial in interrupted:
            study.tell(trial.number, state=TrialState.FAIL)
            if trial.params:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ExperimentalWarning)
                    study.enqueue_trial(trial.params)
        ended = study.get_trials(states=(TrialState.COMPLETE, TrialState.FAIL))
        done = sum(trial.number not in enqueued for trial in ended)
        if done:
            log.info("the study has %d of %d trials", done, self.sweeper.n_trials)
        self.sweeper.n_trials = max(0, self.sweeper.n_trials - done)
        self.sweeper.job_idx = len(study.trials)
