"""Imports everything that a training needs: the fork server of a sweep loads it once, so that jobs start fast.

Only for the fork server: a process that imports this module always exits with 0.
"""

import atexit
import gc
import importlib
import os
import pkgutil

import sklearn.datasets  # noqa: F401  # forked jobs have it already
import timm  # noqa: F401
import torch.utils.tensorboard  # noqa: F401
from hydra import compose, initialize_config_dir

from agebench.config import config_folder

for package in ("agebench.augment", "agebench.data", "agebench.heads", "agebench.models", "agebench.report"):
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(module.name)
with initialize_config_dir(str(config_folder()), version_base="1.3"):  # finds plugins and fills the parser's caches
    compose("config", ["optim.lr=1e-3", "sweep=warm", "hydra.run.dir='a b'"], return_hydra_config=True)
# The garbage collector of a job would otherwise touch these objects, and so copy memory shared with the server.
gc.collect()
gc.freeze()
# Python's shutdown would take two seconds, in which readers of the server's output would wait.
atexit.register(os._exit, 0)
