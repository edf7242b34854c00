"""All that a training imports: the server that starts a sweep's jobs loads it once, and they start in no time.

Only for that server: a process that imports this ends with 0, whatever happens to it.
"""

import atexit
import gc
import importlib
import os
import pkgutil

import sklearn.datasets  # noqa: F401  # what is imported here is imported for others
import timm  # noqa: F401
import torch.utils.tensorboard  # noqa: F401
from hydra import compose, initialize_config_dir

from agebench.config import config_folder

for package in ("agebench.augment", "agebench.data", "agebench.heads", "agebench.models", "agebench.report"):
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(module.name)
with initialize_config_dir(str(config_folder()), version_base="1.3"):  # finds plugins, and warms the grammar's caches
    compose("config", ["optim.lr=1e-3", "sweep=warm", "hydra.run.dir='a b'"], return_hydra_config=True)
# A job's collector would otherwise walk through all of this, and so copy the memory that it shares with the server.
gc.collect()
gc.freeze()
# It has nothing to put in order at its end, which would take two seconds, and whoever reads its output would wait.
atexit.register(os._exit, 0)
