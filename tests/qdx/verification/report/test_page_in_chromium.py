"""The page as a browser lays it out: narrow and wide, light and dark, on paper and by keyboard."""

from __future__ import annotations

import base64

import pytest

from qdx.exporter.graph.ir.site import ROLES
from qdx.verification.measure.localize import Localization, SiteError
from qdx.verification.report.folder import write_report
from qdx.verification.report.index import write_index
from tests.support.browser import Browser, browser
from tests.support.full_report import full_report

# Every text with its place, its size and how it stands out against what is behind it.
TEXTS = """
const channels = color => (color.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
const over = (top, below) => {
  const [r, g, b, a = 1] = top;
  return [r, g, b].map((value, place) => value * a + below[place] * (1 - a));
};
const behind = element => {
  const layers = [];
  for (let one = element; one; one = one.parentElement) layers.push(channels(getComputedStyle(one).backgroundColor));
  return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
};
const light = color => {
  const [r, g, b] = color.map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (one, other) => {
  const [least, most] = [light(one), light(other)].sort((a, b) => a - b);
  return (most + 0.05) / (least + 0.05);
};
document.querySelectorAll("details").forEach(one => { one.open = true; });
const found = [];
const told = (text, element, style, box) => {
  const base = behind(element);
  const color = element instanceof SVGElement ? style.fill : style.color;
  found.push({text: text.trim().slice(0, 60), size: parseFloat(style.fontSize), left: box.left, right: box.right,
              contrast: contrast(over(channels(color), base), base)});
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode, element = node.parentElement;
  if (!node.data.trim() || element.closest("title, .unseen, .skip") || !element.checkVisibility()) continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  for (const box of range.getClientRects())
    if (box.width > 1.5 && box.height > 1.5) told(node.data, element, getComputedStyle(element), box);
}
for (const element of document.querySelectorAll("[data-label]")) {
  const style = getComputedStyle(element, "::before");
  if (style.content !== "none" && element.checkVisibility())
    told(element.dataset.label, element, style, element.getBoundingClientRect());
}
const page = document.documentElement;
return {found, width: page.clientWidth, whole: page.scrollWidth,
        scrolled: [...document.querySelectorAll("body *")].filter(
          one => one.clientWidth && one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflowX !== "visible"
                 && !one.closest(".unseen, thead")).map(one => one.outerHTML.slice(0, 80))};
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page that passed with a map of every role, one that failed, and an index of both."""
    folder = tmp_path_factory.mktemp("reports")
    wide = tuple(
        SiteError(
            f"blocks.{stage}.{role}",
            "linear",
            role,
            f"block.{stage}",
            20.0 + 3 * stage,
            30.0,
            40.0,
            share,
        )
        for stage in range(12)
        for role, share in zip(ROLES, (0.5, 0.2, 0.1, 0.02, 0.005, *([None] * 16)), strict=True)
    )
    passed = full_report(localization=Localization("unet.forward", 11, "quantization", wide, 25.8))
    write_report(passed, folder / "passed")
    write_report(
        full_report(least_db=30.0, bundle="a-bundle-with-" + 8 * "a-very-long-name-"),
        folder / "failed",
    )
    write_index(folder)
    return {
        "passed": folder / "passed" / "report.html",
        "failed": folder / "failed" / "report.html",
        "index": folder / "index.html",
    }


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("name", ["passed", "failed", "index"])
@pytest.mark.parametrize(
    ("width", "scheme"),
    [(390, "light"), (390, "dark"), (900, "light"), (1280, "light"), (1280, "dark")],
)
def test_all_text_is_large_enough_stands_out_and_lies_in_the_window(
    chromium: Browser, pages, name, width, scheme
):
    chromium.show(pages[name], width=width, scheme=scheme)
    shown = chromium.run(TEXTS)
    texts = shown["found"]

    assert len(texts) > 30
    assert shown["whole"] <= shown["width"]
    assert shown["scrolled"] == []
    assert [one for one in texts if one["size"] < 11] == []
    assert [one for one in texts if one["contrast"] < 4.5] == []
    assert [one for one in texts if one["left"] < 0 or one["right"] > width + 0.5] == []


def test_the_colour_scheme_is_the_reader_s(chromium: Browser, pages):
    grounds = []
    for scheme in ("light", "dark"):
        chromium.show(pages["passed"], width=1280, scheme=scheme)
        grounds.append(chromium.run("return getComputedStyle(document.body).backgroundColor"))

    assert grounds == ["rgb(255, 255, 255)", "rgb(20, 24, 28)"]


def test_a_page_opens_without_a_network_and_asks_for_nothing(chromium: Browser, pages):
    chromium.show(pages["passed"], width=1280)

    assert chromium.run("return performance.getEntriesByType('resource').length") == 0
    assert chromium.run(
        "return [...document.images].every(one => one.complete && one.naturalWidth > 0)"
    )


def test_paper_is_white_and_has_everything_open(chromium: Browser, pages):
    chromium.show(pages["passed"], width=800, scheme="dark", medium="print")
    closed = chromium.run(
        "return [...document.querySelectorAll('details td')].filter(one => !one.checkVisibility()).length"
    )
    ground = chromium.run("return getComputedStyle(document.body).backgroundColor")
    paper = base64.b64decode(chromium.cdp("Page.printToPDF")["data"])

    assert (closed, ground) == (0, "rgb(255, 255, 255)")
    assert paper.startswith(b"%PDF")


def press(chromium: Browser, key: str, code: int) -> None:
    for kind in ("keyDown", "keyUp"):
        text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
        chromium.cdp("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                     windowsVirtualKeyCode=code, **text)  # fmt: skip


def test_the_keyboard_reaches_the_content_and_opens_details(chromium: Browser, pages):
    chromium.show(pages["passed"], width=1280)
    press(chromium, "Tab", 9)
    skip = chromium.run(
        "const one = document.activeElement; return [one.className, one.getBoundingClientRect().left >= 0, "
        "parseFloat(getComputedStyle(one).outlineWidth) >= 2]"
    )
    press(chromium, "Enter", 13)
    at = chromium.run("return document.activeElement.id")
    chromium.run("document.querySelector('summary').focus()")
    press(chromium, "Enter", 13)

    assert skip == ["skip", True, True]
    assert at == "content"
    assert chromium.run("return document.querySelector('details').open")


def test_the_measurement_sees_what_is_too_small_too_faint_and_too_wide(
    chromium: Browser, pages, tmp_path
):
    """Planted faults: the other tests would pass if nothing were measured."""
    page = tmp_path / "page.html"
    body = (
        "<p style='font-size: 10px'>small</p><p style='color: #bbb'>faint</p>"
        "<p style='width: 500px; white-space: nowrap'>" + 90 * "w" + "</p>"
    )
    page.write_text(f"<!DOCTYPE html><html lang='en'><body>{body}</body></html>")
    chromium.show(page, width=390)
    shown = chromium.run(TEXTS)

    assert shown["whole"] > shown["width"]
    assert [one["text"] for one in shown["found"] if one["size"] < 11] == ["small"]
    assert [one["text"] for one in shown["found"] if one["contrast"] < 4.5] == ["faint"]
    assert [one["text"][:3] for one in shown["found"] if one["right"] > 390.5] == ["www"]
