"""Canvas: how every picture looks, and how it becomes a file.

Light, quiet and safe for colour-blind eyes (Okabe and Ito 2008): no two things are told apart by colour alone. Pictures are 1600x900 pixels and are
drawn off screen, with the same bytes for the same picture.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import matplotlib
from plotnine import element_blank, element_line, element_rect, element_text, ggplot, labs, theme, theme_minimal

from haina.errors import RunError

#: Okabe and Ito's blue, vermilion and sky blue; ink and greys.
BLUE, RED, SKY, INK, GREY, PALE = "#0072B2", "#D55E00", "#56B4E9", "#222222", "#666666", "#E6E6E6"

_WIDTH, _HEIGHT, _DPI = 10.0, 5.625, 160

#: A title longer than this is broken.
_LINE = 78


def look() -> theme:
    """The theme of every picture."""
    return theme_minimal(base_size=12) + theme(
        figure_size=(_WIDTH, _HEIGHT),
        dpi=_DPI,
        text=element_text(color=INK),
        plot_title=element_text(size=16, weight="bold", ha="left", margin={"b": 4, "units": "pt"}),
        plot_subtitle=element_text(size=11, color=GREY, ha="left", margin={"b": 10, "units": "pt"}),
        plot_title_position="plot",
        plot_background=element_rect(fill="white", color="white"),
        panel_grid_minor=element_blank(),
        panel_grid_major=element_line(color=PALE, size=0.6),
        axis_text=element_text(size=10, color=GREY),
        axis_title=element_text(size=11),
        plot_margin=0.02,
    )


def titled(title: str, subtitle: str, x: str, y: str) -> labs:
    """The words of a picture: a title that says the finding, a subtitle that says how to read it, and axes with units."""
    return labs(title=_broken(title, _LINE), subtitle=_broken(subtitle, 120), x=x, y=y)


def _broken(text: str, width: int) -> str:
    # A pair of dollar signs would start matplotlib's mathematics, and names may hold any sign.
    return textwrap.fill(text, width).replace("$", r"\$")


def draw(picture: ggplot, format: Literal["png", "svg"] = "png") -> bytes:
    """A picture as the bytes of a PNG (1600x900) or an SVG file; the same picture gives the same bytes."""
    out = io.BytesIO()
    settings = {"svg.hashsalt": "haina", "svg.fonttype": "path"}
    with _off_screen(), matplotlib.rc_context(settings):
        picture.save(
            out,
            format=format,
            verbose=False,
            metadata={"Date": None} if format == "svg" else {"Software": None},
        )
    return out.getvalue()


def save(picture: ggplot, path: Path) -> None:
    """Write a picture; the suffix of the path, .png or .svg, is the format.

    Raises:
        RunError: another suffix.
    """
    match path.suffix.lower():
        case ".png":
            path.write_bytes(draw(picture, "png"))
        case ".svg":
            path.write_bytes(draw(picture, "svg"))
        case suffix:
            raise RunError(f"pictures cannot be written as {suffix or path.name!r}", allowed=".png, .svg")


@contextmanager
def _off_screen() -> Iterator[None]:
    """Draw without a window, whatever backend the caller has chosen; a choice made before is put back."""
    from matplotlib import pyplot

    chosen = matplotlib.get_backend(auto_select=False)
    pyplot.switch_backend("agg")
    try:
        yield
    finally:
        if chosen is not None:
            # A backend that was named but cannot be loaded here was of no use before either.
            with suppress(ImportError):
                pyplot.switch_backend(chosen)
