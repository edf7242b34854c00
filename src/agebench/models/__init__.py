"""Networks, with loading of weights, freezing, minimum image sizes and summaries."""

from typing import Any

from agebench.public import find_public, public_names


def __getattr__(name: str) -> Any:
    return find_public(__name__, name)


def __dir__() -> list[str]:
    return sorted(public_names(__name__))
