"""Pages hold nothing of a run, load nothing, and their policy fits exactly their own script."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from fasterseg.serve import page
from fasterseg.serve.page import Page

PAGES = [page.live(), page.index(), page.door()]


def hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@pytest.mark.parametrize("shown", PAGES)
def test_the_policy_allows_exactly_what_stands_in_the_page(shown: Page) -> None:
    rules = dict(rule.strip().split(" ", 1) for rule in shown.policy.split(";"))
    styles = re.findall(r"<style>(.*?)</style>", shown.html, re.DOTALL)
    scripts = re.findall(r"<script>(.*?)</script>", shown.html, re.DOTALL)
    assert rules["style-src"] == hashed(styles[0])
    assert len(styles) == 1
    assert [hashed(script) for script in scripts] == rules.get("script-src", "").split()
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert "unsafe" not in shown.policy


@pytest.mark.parametrize("shown", PAGES)
def test_nothing_is_loaded_from_elsewhere(shown: Page) -> None:
    assert not re.findall(r"(?:https?:)?//[\w.]+\.\w", shown.html)
    assert not re.findall(r"\s(?:src|srcset)\s*=", shown.html)
    assert not re.findall(r"@import|url\(", shown.html)


@pytest.mark.parametrize("shown", PAGES)
def test_no_handler_and_no_style_stands_in_an_attribute(shown: Page) -> None:
    markup = re.sub(r"<(style|script)>.*?</\1>", "", shown.html, flags=re.DOTALL)
    assert not re.findall(r"\s(?:on\w+|style)\s*=", markup)


@pytest.mark.parametrize("shown", [page.live(), page.index()])
def test_the_script_sets_text_and_never_markup(shown: Page) -> None:
    script = re.search(r"<script>(.*?)</script>", shown.html, re.DOTALL)
    assert script is not None
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(|srcdoc"
    assert not re.findall(forbidden, script[1])


def test_every_control_has_a_name() -> None:
    markup = page.live().html
    for kind in re.findall(r"<input[^>]*>", re.sub(r"<script>.*", "", markup, flags=re.DOTALL)):
        identity = re.search(r'id="([\w-]+)"', kind)
        assert identity is not None
        assert re.search(rf"<label[^>]*>[^<]*{re.escape(kind)}[^<]*", markup), kind
