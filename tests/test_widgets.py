from __future__ import annotations

import base64
import contextlib
import io

import ipywidgets
import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure
from PIL import Image

from kdlib.course import widgets

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class Drawing:
    """A drawing function that remembers what it was called with and refuses 13."""

    def __init__(self) -> None:
        self.calls: list[dict[str, object]] = []

    def __call__(self, **values: object) -> Figure:
        self.calls.append(values)
        figure, axes = plt.subplots(figsize=(3, 2))
        if values["k"] == 13:
            raise ValueError("13 is <unlucky>")
        axes.plot([0, 1], [0, values["k"]])
        figure.set_label(f"A line that ends at {values['k']}")
        return figure


def slider() -> ipywidgets.IntSlider:
    return ipywidgets.IntSlider(value=3, min=0, max=20)


def shown(panel: widgets.Explorer) -> str:
    return str(panel.children[-2 if isinstance(panel, widgets.Runner) else -1].value)


def test_the_first_picture_is_there_with_its_alt_text() -> None:
    panel = widgets.explorer({"k": slider()}, Drawing())
    assert "data:image/png;base64," in shown(panel)
    assert 'alt="A line that ends at 3"' in shown(panel)


def test_moving_a_control_draws_again() -> None:
    draw, control = Drawing(), slider()
    panel = widgets.explorer({"k": control}, draw)
    before = shown(panel)
    control.value = 7
    assert draw.calls == [{"k": 3}, {"k": 7}]
    assert shown(panel) != before
    assert 'alt="A line that ends at 7"' in shown(panel)


def test_going_back_takes_the_kept_picture() -> None:
    draw, control = Drawing(), slider()
    panel = widgets.explorer({"k": control}, draw)
    before = shown(panel)
    control.value = 7
    control.value = 3
    assert shown(panel) == before
    assert len(draw.calls) == 2


def test_only_the_last_pictures_are_kept() -> None:
    draw, control = Drawing(), slider()
    widgets.explorer({"k": control}, draw, keep=2)
    for value in (4, 5, 3):
        control.value = value
    assert [call["k"] for call in draw.calls] == [3, 4, 5, 3]


def test_sliders_answer_when_they_are_let_go() -> None:
    control = slider()
    widgets.explorer({"k": control}, Drawing())
    assert control.continuous_update is False
    assert control.description == "k"


def test_an_error_is_shown_inside_the_panel_and_goes_away() -> None:
    control = slider()
    panel = widgets.explorer({"k": control}, Drawing())
    control.value = 13
    assert isinstance(panel.error, ValueError)
    assert "ValueError: 13 is &lt;unlucky&gt;" in shown(panel)
    assert "<img" not in shown(panel)
    control.value = 4
    assert panel.error is None
    assert 'alt="A line that ends at 4"' in shown(panel)


def test_set_raises_what_the_panel_shows() -> None:
    panel = widgets.explorer({"k": slider()}, Drawing())
    panel.set(k=5)
    assert panel.values == {"k": 5}
    with pytest.raises(ValueError, match="unlucky"):
        panel.set(k=13)
    with pytest.raises(ValueError, match="unlucky"):
        panel.set(k=13)
    with pytest.raises(KeyError, match="no control named q; this panel has: k"):
        panel.set(q=1)


def test_a_drawing_function_that_fails_at_once_fails_in_its_cell() -> None:
    with pytest.raises(ValueError, match="unlucky"):
        widgets.explorer({"k": ipywidgets.IntSlider(value=13, max=20)}, Drawing())
    with pytest.raises(TypeError, match="returned NoneType, expected a Figure"):
        widgets.explorer({"k": slider()}, lambda k: None)


def test_no_figure_stays_open() -> None:
    kept = plt.figure()
    control = slider()
    widgets.explorer({"k": control}, Drawing())
    control.value = 13
    assert plt.get_fignums() == [kept.number]


def test_the_output_carries_a_picture_for_copies_without_a_kernel() -> None:
    panel = widgets.explorer({"k": slider()}, Drawing())
    data, metadata = panel._repr_mimebundle_()
    assert data[WIDGET_VIEW]["model_id"] == panel.model_id
    assert data["text/plain"] == metadata["image/png"]["alt"] == "A line that ends at 3"
    assert Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).size == (300, 200)


def test_task_and_given_alt_text_are_shown_as_text() -> None:
    panel = widgets.explorer(
        {"k": slider()}, lambda k: plt.figure(), task="Try: find k < 4.", alt='scores "before" & after'
    )
    assert panel.children[0].value == '<p class="kd-task"><b>Try:</b> find k &lt; 4.</p>'
    assert 'alt="scores &quot;before&quot; &amp; after"' in shown(panel)


class Work(Drawing):
    """Work in four steps."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[float, bool]] = []
        self.panel: widgets.Runner | None = None

    def __call__(self, *, k: int, report: widgets.Report) -> Figure:
        for step in range(4):
            report(step + 1, 4)
            if self.panel is not None:
                button, bar = self.panel.children[-3].children[-2:]
                self.seen.append((bar.value, button.disabled))
        return super().__call__(k=k)


def test_a_runner_works_only_when_its_button_is_pressed() -> None:
    work, control = Work(), slider()
    panel = widgets.runner({"k": control}, work, task="run it")
    control.value = 5
    assert work.calls == []
    assert "image/png" not in panel._repr_mimebundle_()[0]
    panel.run()
    assert work.calls == [{"k": 5}]
    assert 'alt="A line that ends at 5"' in shown(panel)


def test_a_runner_shows_how_far_it_is() -> None:
    work = Work()
    work.panel = widgets.runner({"k": slider()}, work)
    work.panel.run()
    button, bar = work.panel.children[-3].children[-2:]
    assert work.seen == [(0.25, True), (0.5, True), (0.75, True), (1.0, True)]
    assert (button.disabled, bar.layout.visibility) == (False, "hidden")


def test_a_runner_lists_what_was_tried() -> None:
    panel = widgets.runner({"k": slider()}, Work())
    for k in (4, 13, 5, 4):
        panel.set(k=k)
        with contextlib.suppress(ValueError):
            panel.run()
    assert [values["k"] for values, _ in panel.tried] == [4, 5]
    table = panel.children[-1].value
    assert table.index("A line that ends at 5") < table.index("A line that ends at 4")
    assert "<th>run</th><th>k</th><th>what came out</th>" in table


def test_a_runner_begins_with_the_picture_it_is_given() -> None:
    first = Drawing()(k=2)
    panel = widgets.runner({"k": slider()}, Work(), first=first)
    assert 'alt="A line that ends at 2"' in shown(panel)
    assert panel._repr_mimebundle_()[0]["image/png"]
    assert plt.get_fignums() == []


def test_a_runner_can_be_pressed_again_after_an_error() -> None:
    panel = widgets.runner({"k": slider()}, Work())
    panel.set(k=13)
    with pytest.raises(ValueError, match="unlucky"):
        panel.run()
    panel.set(k=4)
    panel.run()
    assert 'alt="A line that ends at 4"' in shown(panel)
