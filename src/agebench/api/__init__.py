"""Train, predict and compare from Python, for notebooks and scripts.

Example:
    >>> from agebench.api import compare, load, train
    >>> run = train("data=digits", "model=mlp", trainer={"max_epochs": 2})  # doctest: +SKIP
    >>> run.metrics["accuracy"]  # doctest: +SKIP
    0.9444
    >>> run.predict("photos")  # doctest: +SKIP
    >>> compare("outputs")  # doctest: +SKIP

Every object shows itself as a table in a notebook. What is wrong with a call, a config or the data is raised as
agebench.errors.UserError; a training that diverges is raised as FailedError.
"""

from agebench.api.comparison import Compared, compare
from agebench.api.pictures import Picture
from agebench.api.run import Run, load
from agebench.api.table import Table
from agebench.api.training import train

__all__ = ["Compared", "Picture", "Run", "Table", "compare", "load", "train"]
