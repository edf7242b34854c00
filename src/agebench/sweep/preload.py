"""All that a training imports: the server that starts a sweep's jobs loads it once, and they start in no time."""

import timm  # noqa: F401  # what is imported here is imported for others
import torch.utils.tensorboard  # noqa: F401
from hydra.core.plugins import Plugins

import agebench.features
import agebench.fit  # noqa: F401

Plugins.instance()  # finds Hydra's plugins, which takes a moment
