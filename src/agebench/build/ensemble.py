"""Build one LightningModule that averages the posteriors of trained modules, and of several views of each image."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from agebench.heads.base import Head
from agebench.metrics.formulas import FLOOR
from agebench.module import ImageModule

View = tuple[int, int, bool]  # pixels down, pixels to the right, whether the image is flipped
SHIFTS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))  # px, down and to the right
TTA: dict[str | None, tuple[View, ...]] = {
    None: ((0, 0, False),),
    "flip": ((0, 0, False), (0, 0, True)),
    "shift": tuple((*shift, False) for shift in SHIFTS),
    "flip+shift": tuple((*shift, flipped) for shift in SHIFTS for flipped in (False, True)),
}


def view_of(images: Tensor, view: View) -> Tensor:
    """Return images (B, C, S, S) shifted by up to S px, with the pixels of the edge repeated, and then flipped."""
    down, right, flipped = view
    images = _shifted(_shifted(images, down, axis=2), right, axis=3)
    return images.flip(3) if flipped else images


def _shifted(images: Tensor, pixels: int, *, axis: int) -> Tensor:
    # In slices, because padding with edge pixels has no kernel for uint8.
    size, count = images.shape[axis], abs(pixels)
    if count == 0:
        return images
    edge = images.narrow(axis, 0 if pixels > 0 else size - 1, 1)
    kept = images.narrow(axis, 0 if pixels > 0 else count, size - count)
    return torch.cat([*[edge] * count, kept] if pixels > 0 else [kept, *[edge] * count], dim=axis)


class Member(nn.Module):
    """The normalisation, the network and the head of a trained module."""

    def __init__(self, module: ImageModule) -> None:
        super().__init__()
        self.normalise, self.model, self.head = module.normalise, module.model, module.head
        self.memory_format = module.memory_format

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return posteriors, shape (B, R), and point estimates, shape (B,), of images as for the module."""
        outputs = self.model(self.normalise(images).contiguous(memory_format=self.memory_format)).float()
        with torch.autocast(images.device.type, enabled=False):
            return self.head.posterior(outputs), self.head.point(outputs)


class AveragedNetwork(nn.Module):
    """Averages the predictions of members over members and views.

    Args:
        modules: The trained modules, with R labels each.
        views: The views of each image.
    """

    def __init__(self, modules: Sequence[ImageModule], views: Sequence[View]) -> None:
        super().__init__()
        self.members, self.views = nn.ModuleList(map(Member, modules)), tuple(views)

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean posterior and, in the last column, the mean point estimate, shape (B, R + 1)."""
        predictions = [member(view_of(images, view)) for view in self.views for member in self.members]
        posteriors, points = zip(*predictions, strict=True)
        mean, point = torch.stack(posteriors).mean(dim=0), torch.stack(points).mean(dim=0)  # (B, R) and (B,)
        return torch.cat([mean, point[:, None]], dim=1)  # -> (B, R + 1)


class AveragedHead(Head):
    """Reads the outputs of AveragedNetwork.

    The point estimate is the statistic of the mean posterior that the members' heads use. If they use different ones,
    or if the estimate of a head does not come from its posterior (regression), it is the mean of the members' point
    estimates.

    Args:
        heads: The heads of the members, for the same labels.
    """

    def __init__(self, heads: Sequence[Head]) -> None:
        first = heads[0]
        super().__init__(first.num_labels, first.values.tolist(), ordered=first.ordered, decode=first.decode)
        self.num_outputs = first.num_labels + 1
        self.from_posterior = all(head.from_posterior and head.decode == first.decode for head in heads)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the negative log-likelihood of the mean posterior in nats, shape ()."""
        return -self.posterior(outputs).gather(1, target[:, None]).clamp(min=FLOOR).log().mean()

    def posterior(self, outputs: Tensor) -> Tensor:
        """Return the mean posterior, shape (B, R)."""
        return outputs[:, :-1]

    def point(self, outputs: Tensor) -> Tensor:
        """Return the point estimate in the target's unit, shape (B,)."""
        return super().point(outputs) if self.from_posterior else outputs[:, -1]


def build_ensemble(modules: Sequence[ImageModule], tta: str | None) -> ImageModule:
    """Return the module that averages trained modules; the module itself for a single one without views.

    Args:
        modules: The modules, with the same labels and image size. Test-time augmentation, the seed and the metadata are
            those of the first.
        tta: The views: null, `flip`, `shift` or `flip+shift`.
    """
    first = modules[0]
    if len(modules) == 1 and tta is None:
        return first
    return ImageModule(
        AveragedNetwork(modules, TTA[tta]),
        AveragedHead([module.head for module in modules]),
        normalise=nn.Identity(),  # each member has its own
        augment=first.augment,
        optim=torch.optim.SGD,  # never used
        scheduler=None,
        unit=first.unit,
        channels_last=False,  # each member sets its own memory format
        seed=first.seed,
        stamp=first.stamp,
    )
