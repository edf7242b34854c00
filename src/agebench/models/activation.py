"""Activation functions by name, for the networks of this package."""

from torch import nn

from agebench.errors import UserError, did_you_mean

_LAYERS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
}


def activation_layer(name: str) -> nn.Module:
    """Return a new layer for the name of an activation, such as `relu` or `leaky_relu`.

    Raises:
        UserError: If the name is unknown. The message lists the nearest name and all names.
    """
    if name not in _LAYERS:
        guess = did_you_mean(str(name).lower(), _LAYERS)
        raise UserError(f"model.activation={name} is unknown{guess}; known: {', '.join(_LAYERS)}")
    return _LAYERS[name]()
