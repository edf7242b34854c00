"""HTML from the templates of this package: values are escaped, and a page loads nothing from elsewhere."""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from agebench.text import visible

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """Return a page: a template with the given values, and with the style of all pages."""
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # Pages have no scripts. A browser applies this style and embedded images only, whatever a name contains.
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return (
        _environment().get_template(template).render(style=Markup(style), policy=policy, **values)
    )  # a file of this package


@cache
def _style() -> str:
    return "\n" + (TEMPLATES / "style.css").read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )


def _finalize(value: Any) -> Any:
    """Return a value to print, without control characters and marks that reorder a line."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
