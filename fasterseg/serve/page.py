"""The pages, each one text without anything loaded from elsewhere, and the policy that says so.

Nothing of a run is part of them: a script asks for it and sets it as text, so there is nothing
to escape.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

POLICY_HEADER: Final = "Content-Security-Policy"
BARE_POLICY: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"
"""For answers that are no pages."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page with its policy.

    Attributes:
        html: the text.
        policy: value of `POLICY_HEADER`: its own style and script by hash, its own host.
    """

    html: str
    policy: str


@cache
def live() -> Page:
    """The live page of one stream."""
    return _page("view.html", "common.js", "view.js")


@cache
def index() -> Page:
    """The page that lists several streams."""
    return _page("index.html", "common.js", "index.js")


@cache
def door() -> Page:
    """The page that asks for the token."""
    return _page("door.html")


def _page(name: str, *script_names: str) -> Page:
    style = _read("view.css")
    html = _read(name).replace("/* style */", style)
    script = "".join(_read(script_name) for script_name in script_names)
    html = html.replace("/* script */", script)
    rules = [
        BARE_POLICY,
        f"style-src {_hash(style)}",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "form-action 'self'",
    ]
    if script:
        rules.append(f"script-src {_hash(script)}")
    return Page(html, "; ".join(rules))


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
