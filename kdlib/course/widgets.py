"""The one widget pattern of the notebooks: controls on top, a task above them, one picture below.

    explorer  draws again whenever a control moves; `render` must be fast and pure, so that its pictures can be kept
    runner    works only when its Run button is pressed, shows how far it has come, and lists what was tried

Both show the picture as an `<img>` with an alt text in a box of fixed height: nothing jumps or flickers while a
control moves. The cell's output carries the first picture as a plain PNG as well, so a copy without a kernel (HTML, a
code host's preview) shows it in place of the controls.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from kdlib import png

Controls = Mapping[str, ipywidgets.Widget]
Render = Callable[..., Figure]
Report = Callable[[int, int], None]
HEIGHT = "420px"


class Picture(NamedTuple):
    """A drawn figure: base64 text of the PNG and the words that stand for it."""

    png: str
    alt: str


class Explorer(ipywidgets.VBox):
    """A panel that draws again whenever a control moves; made by `explorer`.

    Attributes:
        controls: The controls by the argument of `render` that each of them sets.
        picture: What is shown, or was shown before an error.
        error: What the last drawing raised, or `None`.
    """

    def __init__(self, controls: Controls, render: Render, task: str, alt: str, height: str, keep: int) -> None:
        self.controls = dict(controls)
        self.picture: Picture | None = None
        self.error: Exception | None = None
        self._render, self._alt, self._height = render, alt, height
        self._kept = lru_cache(maxsize=keep)(self._draw)
        self._box = ipywidgets.HTML(layout=ipywidgets.Layout(height=height, width="100%", overflow="hidden"))
        for name, control in self.controls.items():
            _dress(control, name)
        row = ipywidgets.HBox(self._bar(), layout=ipywidgets.Layout(flex_flow="row wrap"))
        super().__init__([*_task_line(task), row, self._box, *self._below()])
        self.add_class("kd-panel")
        self._start()

    @property
    def values(self) -> dict[str, Any]:
        """The value of every control."""
        return {name: control.value for name, control in self.controls.items()}

    def set(self, **values: Any) -> None:
        """Moves controls as a learner would, and raises what a learner would read in the panel.

        Raises:
            KeyError: If there is no control of that name.
            Exception: Whatever `render` raised for these values.
        """
        if unknown := sorted(set(values) - set(self.controls)):
            raise KeyError(f"no control named {', '.join(unknown)}; this panel has: {', '.join(self.controls)}")
        if {**self.values, **values} != self.values:
            self.error = None
        for name, value in values.items():
            self.controls[name].value = value
        self._raise()

    def _bar(self) -> list[ipywidgets.Widget]:
        return list(self.controls.values())

    def _below(self) -> list[ipywidgets.Widget]:
        return []

    def _start(self) -> None:
        self._refresh()
        self._raise()
        for control in self.controls.values():
            control.observe(self._refresh, names="value")

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error

    def _refresh(self, _change: object = None) -> None:
        try:
            self._show(self._kept(*self.values.values()))
        except Exception as error:  # a learner sees it in the panel, a test through `error` or `set`
            self.error = error
            message = html.escape(f"{type(error).__name__}: {error}")
            self._box.value = (
                '<div role="alert" style="border-left: 4px solid #c62828; padding: 0 1em; line-height: 1.5">'
                f"<b>This could not be drawn.</b><br><code>{message}</code></div>"
            )

    def _draw(self, *values: Any, **more: Any) -> Picture:
        already_open = set(plt.get_fignums())
        try:
            return _picture(self._render(**dict(zip(self.controls, values, strict=True)), **more), self._alt)
        finally:  # a figure left open would be shown a second time below the panel
            for number in set(plt.get_fignums()) - already_open:
                plt.close(number)

    def _show(self, picture: Picture) -> None:
        self.error, self.picture = None, picture
        self._box.value = (
            f'<img src="data:image/png;base64,{picture.png}" alt="{html.escape(picture.alt)}"'
            f' style="display: block; max-width: 100%; max-height: {self._height}">'
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle = dict(super()._repr_mimebundle_(**kwargs) or {})
        if self.picture is None:
            return bundle, {}
        pictured = {"text/plain": self.picture.alt, "image/png": self.picture.png}
        return bundle | pictured, {"image/png": {"alt": self.picture.alt}}


class Runner(Explorer):
    """A panel that works when its Run button is pressed; made by `runner`.

    Attributes:
        tried: What was run, in order: the value of every control, and the words for what came out.
    """

    def __init__(self, first: Figure | None, *arguments: Any) -> None:
        self._first = first
        self.tried: list[tuple[dict[str, Any], str]] = []
        self._table = ipywidgets.HTML()
        self._button = ipywidgets.Button(description="Run", button_style="primary", icon="play")
        self._progress = ipywidgets.FloatProgress(min=0, max=1, layout=ipywidgets.Layout(visibility="hidden"))
        super().__init__(*arguments)

    def run(self) -> None:
        """Presses the button, and raises what a learner would read in the panel."""
        self._button.click()
        self._raise()

    def report(self, done: int, total: int) -> None:
        """Moves the progress bar: `done` of `total` steps."""
        self._progress.value = done / total

    def _bar(self) -> list[ipywidgets.Widget]:
        return [*super()._bar(), self._button, self._progress]

    def _below(self) -> list[ipywidgets.Widget]:
        return [self._table]

    def _start(self) -> None:
        self._button.on_click(self._pressed)
        if self._first is None:
            self._box.value = "<p>Nothing has been run yet: press the button.</p>"
        else:
            self._show(_picture(self._first, self._alt))
            plt.close(self._first)

    def _pressed(self, _button: ipywidgets.Button) -> None:
        self._button.disabled, self._progress.value = True, 0.0
        self._progress.layout.visibility = "visible"
        try:
            self._refresh()
            self._note()
        finally:  # also when the kernel is interrupted
            self._button.disabled, self._progress.layout.visibility = False, "hidden"

    def _note(self) -> None:
        """Adds what was run to the table below the picture, the latest on top; the same settings only once."""
        if self.picture is None or self.error is not None or any(values == self.values for values, _ in self.tried):
            return
        self.tried.append((self.values, self.picture.alt))
        rows = [[str(n), *values.values(), words] for n, (values, words) in enumerate(self.tried, 1)][::-1]
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ("run", *self.controls, "what came out"))
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
        self._table.value = f'<table class="kd-tried"><tr>{head}</tr>{body}</table>'

    def _draw(self, *values: Any, **more: Any) -> Picture:
        return super()._draw(*values, report=self.report, **more)


def explorer(
    controls: Controls, render: Render, *, task: str = "", alt: str = "", height: str = HEIGHT, keep: int = 64
) -> Explorer:
    """Shows `render(**values of the controls)` and draws it again whenever a control moves.

    Args:
        controls: Core ipywidgets by argument name; a slider answers when it is let go, not while it moves.
        render: Draws and returns a figure, the same one for the same values. It is closed after drawing.
        task: One line above the controls that says what to try and what to look for.
        alt: Alt text of the picture, for figures without one of their own (`figure.set_label`).
        height: Height of the picture's box, a CSS length.
        keep: Number of pictures kept; going back to a kept one does not call `render`.

    Raises:
        Exception: Whatever `render` raises for the first values. Later errors are shown inside the panel.
    """
    return Explorer(controls, render, task, alt, height, keep)


def runner(
    controls: Controls,
    work: Render,
    *,
    first: Figure | None = None,
    task: str = "",
    alt: str = "",
    height: str = HEIGHT,
    keep: int = 64,
) -> Runner:
    """Shows `work(**values of the controls, report=...)` each time the Run button is pressed, and lists what was tried.

    Args:
        controls: As of `explorer`, as are `task`, `alt`, `height` and `keep`.
        work: Computes, calls `report(done, total)` as it goes on, and returns a figure.
        first: The picture to begin with, so that a copy without a kernel shows a result.
    """
    return Runner(first, controls, work, task, alt, height, keep)


def _picture(figure: Figure, alt: str) -> Picture:
    if not isinstance(figure, Figure):
        kind = type(figure).__name__
        raise TypeError(f"the drawing function returned {kind}, expected a Figure; end it with `return fig`")
    text = str(figure.get_label() or alt or "Picture for the values of the controls above")
    return Picture(base64.b64encode(png.png(figure)).decode("ascii"), text)


def _dress(control: ipywidgets.Widget, name: str) -> None:
    if hasattr(control, "continuous_update"):
        control.continuous_update = False
    control.description = control.description or name
    control.style.description_width = "initial"


def _task_line(task: str) -> list[ipywidgets.Widget]:
    text = html.escape(task.removeprefix("Try:").strip())
    return [ipywidgets.HTML(f'<p class="kd-task"><b>Try:</b> {text}</p>')] if text else []
