"""Random changes to a whole batch of images on its device, a draw of its own for each image.

Our own code by measurement. kornia 0.9 colours and warps per image too, but its RandAugment draws one set of operations
for the whole batch, as do torchvision's v2 transforms, which are right only one image at a time. CPU time in ms of one
thread (AMD EPYC with AVX-512 bf16, torch 2.15, medians of 15, at 224 px of 3, alternating with a training step of the
hiragana notebook's CNN in bf16, channels_last; kornia 0.9, torchvision 0.29.2 in a loop over the images):

    batch           recipe       here   kornia   torchvision   share of the step
    32x1x48x48      hiragana      1.2      2.5           5.8                2.8%
                    cacd          0.5      1.5           3.1                1.6%
                    standard      2.0      5.3           9.1                6.1%
    128x1x28x28     hiragana      1.1      2.6            21                2.0%
                    cacd          1.1      2.5            22                1.8%
                    standard      3.0       12            63                5.3%
    32x3x224x224    hiragana       32       45            75                1.9%
                    cacd           19       53            12                1.1%
                    standard       47       86            69                2.8%

Of a ConvNeXt-Tiny step (16x3x224x224, bf16, 4.5 s of one thread) standard is 0.5%. RandAugment has got faster since:
benchmarks/README.md has it, and every recipe beside its step.
"""

from agebench.augment.batch import Augment
from agebench.augment.randaugment import RandAugment

__all__ = ["Augment", "RandAugment"]
