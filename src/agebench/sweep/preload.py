"""Imports all modules that training needs. The fork server of a sweep does this once, so that jobs start fast.

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

for package in ("agebench.augment", "agebench.data", "agebench.heads", "agebench.models"):
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(module.name)
with initialize_config_dir(str(config_folder()), version_base="1.3"):  # finds plugins and fills the parser's caches
    compose("config", ["optim.lr=1e-3", "sweep=warm", "hydra.run.dir='a b'"], return_hydra_config=True)
# Otherwise the garbage collector of a job writes to these objects, which copies memory shared with the server.
gc.collect()
gc.freeze()
# Skip the shutdown of Python, which takes two seconds and delays readers of the output of the server.
atexit.register(os._exit, 0)
