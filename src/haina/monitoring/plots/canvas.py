"""Canvas: how every picture looks, and how it becomes a file.

Light, quiet and safe for colour-blind eyes (Okabe and Ito 2008): no two things are told apart by colour alone. Pictures are 1600x900 pixels and are
drawn off screen, with the same bytes for the same picture.
"""

# plotnine leaves some of its functions without types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import matplotlib
from plotnine import (
    element_blank,
    element_line,
    element_rect,
    element_text,
    ggplot,
    labs,
    scale_x_continuous,
    theme,
    theme_minimal,
)

from haina.errors import RunError
from haina.monitoring.text import plain

#: Okabe and Ito's blue, vermilion and sky blue; ink and greys.
BLUE, RED, SKY, INK, GREY, PALE = "#0072B2", "#D55E00", "#56B4E9", "#222222", "#666666", "#E6E6E6"

_WIDTH, _HEIGHT, _DPI = 10.0, 5.625, 160

_WIDE = ("Noto Sans CJK SC", "Noto Sans SC", "PingFang SC", "Microsoft YaHei", "WenQuanYi Micro Hei")

#: A title longer than this is broken.
_LINE = 76


def look() -> theme:
    """The theme of every picture."""
    return theme_minimal(base_size=12) + theme(
        figure_size=(_WIDTH, _HEIGHT),
        dpi=_DPI,
        text=element_text(color=INK, family=_fonts()),
        plot_title=element_text(size=15, weight="bold", ha="left", margin={"b": 4}),
        plot_subtitle=element_text(size=11, color=GREY, ha="left", margin={"b": 10}),
        plot_title_position="plot",
        plot_background=element_rect(fill="white", color="white"),
        panel_grid_minor=element_blank(),
        panel_grid_major=element_line(color=PALE, size=0.6),
        axis_text=element_text(size=10, color=GREY),
        axis_title=element_text(size=11),
        plot_margin=0.02,
    )


def _fonts() -> list[str]:
    """matplotlib's own font, then those installed here that have Chinese, Japanese and Korean letters."""
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(font for font in _WIDE if font in installed)]


def titled(title: str, subtitle: str, x: str, y: str) -> labs:
    """The words of a picture: a title that says the finding, a subtitle that says how to read it, and axes with units."""
    return labs(title=_broken(title, _LINE), subtitle=_broken(subtitle, 120), x=x, y=y)


def _broken(text: str, width: int) -> str:
    return textwrap.fill(text, width)


def rounds_axis(first: int, last: int, room: float = 0.0) -> scale_x_continuous:
    """An axis of whole rounds, with room on the right for names."""
    first, last = int(first), int(last)
    step = next(s for s in _steps() if (last - first) / s <= 10)
    breaks = sorted({first, *range(-(-first // step) * step, last + 1, step)})
    if len(breaks) > 2 and breaks[1] - breaks[0] < 0.7 * step:
        del breaks[1]
    return scale_x_continuous(breaks=breaks, expand=(0.02, 0.5, 0.02 + room, 0.5))


def _steps() -> Iterator[int]:
    return (digit * 10**power for power in range(10) for digit in (1, 2, 5))


def percents(values: Sequence[Any]) -> list[str]:
    """Labels of an axis of parts of 1, with a decimal where whole percents would repeat."""
    spread = max(values, default=1.0) - min(values, default=0.0)
    return [f"{value:.{0 if spread >= 0.3 else 1}%}" for value in values]


def short(client: str) -> str:
    """A client's name as it fits beside a picture."""
    return plain(client, 18)


def draw(picture: ggplot, format: Literal["png", "svg"] = "png") -> bytes:
    """A picture as the bytes of a PNG (1600x900) or an SVG file; the same picture gives the same bytes."""
    out = io.BytesIO()
    # Names of clients may hold any sign: dollars are no mathematics here, and a letter that no font has is drawn as a box.
    settings: Any = {"svg.hashsalt": "haina", "svg.fonttype": "path", "text.parse_math": False}
    with _off_screen(), matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+", UserWarning)
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
