"""Contract checks of backbones, heads, sources, augmentations and configs, for the tests of your own package.

Each check is one line in a test, and needs no pytest:

    from agebench.testing import check_backbone

    def test_the_backbone_keeps_the_contract():
        check_backbone("mynets.TinyNet", width=8)

A check raises ContractError, whose message is the contract and what came instead.
"""

from agebench.contract import ContractError
from agebench.testing.augmentations import check_augmentation
from agebench.testing.backbones import check_backbone
from agebench.testing.configs import check_config
from agebench.testing.heads import check_head
from agebench.testing.sources import check_source

__all__ = [
    "ContractError",
    "check_augmentation",
    "check_backbone",
    "check_config",
    "check_head",
    "check_source",
]
