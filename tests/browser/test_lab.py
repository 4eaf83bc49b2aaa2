"""JupyterLab in a real browser: a notebook runs, a control is moved by keyboard, and the picture answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from conftest import FLAGS, ROOT, Lab
from playwright.sync_api import Locator, Page, expect, sync_playwright

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PICTURES = ROOT / "build" / "browser"
RUN_LIMIT = 900  # seconds for all cells of a notebook, against hangs
TINY = """
import matplotlib.pyplot as plt
import ipywidgets
from kdlib.course import widgets

def draw(k):
    if k == 9:
        raise ValueError("nine is too many")
    fig, ax = plt.subplots(figsize=(6, 4))
    ax.plot([k * x * x for x in range(20)])
    fig.set_label(f"A parabola, {k} times as steep")
    return fig

def work(k, report):
    for step in range(5):
        report(step + 1, 5)
    return draw(k)
""".strip()


@pytest.fixture
def page(chromium: str) -> Iterator[Page]:
    """A fresh browser page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.set_default_timeout(30_000)
            yield page
        finally:
            PICTURES.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=PICTURES / "last.png")
            browser.close()


def write(path: Path, *cells: str) -> str:
    """Writes a notebook with these code cells; returns its name."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
    return path.name


def forget_outputs(path: Path) -> None:
    """Takes away the stored outputs, so that all that is seen was made now."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)


def run_all(page: Page, lab: Lab, name: str) -> None:
    """Opens a notebook, chooses Run > Run All Cells, and waits until every code cell has been run."""
    page.goto(lab.url(name))
    expect(page.locator("#jp-main-statusbar").get_by_text("| Idle")).to_be_visible(timeout=90_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    prompts = page.locator(".jp-CodeCell .jp-InputArea-prompt")
    deadline = time.monotonic() + RUN_LIMIT
    while time.monotonic() < deadline:
        shown = [text.strip() for text in prompts.all_inner_texts()]
        if shown and all(text.strip("[]:").strip().isdigit() for text in shown):
            break
        page.wait_for_timeout(500)
        assert errors(page) == []
    else:
        pytest.fail(f"{name} was not done after {RUN_LIMIT} s; prompts: {shown}")
    page.wait_for_timeout(500)
    assert errors(page) == []


def errors(page: Page) -> list[str]:
    """Text of the tracebacks in the page, and of the errors that panels show."""
    tracebacks = page.locator(".jp-OutputArea-output", has_text="Traceback (most recent call last)")
    return [*tracebacks.all_inner_texts(), *page.locator(".kd-panel [role=alert]").all_inner_texts()]


def picture(panel: Locator) -> str:
    return panel.locator("img").get_attribute("src") or ""


def press_on_slider(panel: Locator, key: str) -> None:
    handle = panel.locator(".noUi-handle").first
    handle.scroll_into_view_if_needed()
    handle.focus()
    handle.press(key)


def move_first_slider(panel: Locator) -> None:
    """Presses an arrow key on the panel's first slider, and sees that its picture changes."""
    before = picture(panel)
    assert before.startswith("data:image/png;base64,")
    handle = panel.locator(".noUi-handle").first
    at_its_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
    press_on_slider(panel, "ArrowLeft" if at_its_end else "ArrowRight")
    expect(panel.locator("img")).not_to_have_attribute("src", before)


def photograph(page: Page, panel: Locator, name: str) -> None:
    panel.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    page.screenshot(path=PICTURES / f"{name}.png")


def test_a_panel_answers_shows_errors_and_runs(page: Page, lab: Lab) -> None:
    explorer_cell = "widgets.explorer({'k': ipywidgets.IntSlider(7, 0, 9)}, draw, task='find the limit')"
    runner_cell = "widgets.runner({'k': ipywidgets.IntSlider(2, 0, 9)}, work, first=draw(1))"
    run_all(page, lab, write(lab.folder / "tiny.ipynb", TINY, explorer_cell, runner_cell))
    explorer, runner = page.locator(".kd-panel").first, page.locator(".kd-panel").nth(1)

    move_first_slider(explorer)
    expect(explorer.locator("img")).to_have_attribute("alt", "A parabola, 8 times as steep")
    photograph(page, explorer, "tiny-explorer")
    press_on_slider(explorer, "ArrowRight")
    expect(explorer.get_by_role("alert")).to_contain_text("ValueError: nine is too many")
    photograph(page, explorer, "tiny-error")
    press_on_slider(explorer, "ArrowLeft")
    expect(explorer.locator("img")).to_have_attribute("alt", "A parabola, 8 times as steep")

    expect(runner.locator("img")).to_have_attribute("alt", "A parabola, 1 times as steep")
    runner.get_by_role("button", name="Run").click()
    expect(runner.locator("img")).to_have_attribute("alt", "A parabola, 2 times as steep")
    assert errors(page) == []


def test_an_error_in_a_cell_is_noticed(page: Page, lab: Lab) -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run_all(page, lab, write(lab.folder / "broken.ipynb", "1 / 0", "2"))


@pytest.mark.parametrize("name", ["01_stpm"])
def test_a_notebook_runs_and_its_panels_answer(page: Page, lab: Lab, name: str) -> None:
    forget_outputs(lab.folder / f"{name}.ipynb")
    run_all(page, lab, f"{name}.ipynb")
    panels = page.locator(".kd-panel:has(.noUi-handle):not(:has(button))")
    expect(panels.first).to_be_visible()
    photograph(page, panels.first, f"{name}-before")
    move_first_slider(panels.first)
    photograph(page, panels.first, f"{name}-after")
    assert errors(page) == []
