"""Plots: pictures of a run in the grammar of graphics (plotnine), made from round records.

Each function gives one picture, or None where the run has nothing of the kind (no evaluation, a rule without shares, no trust). Titles say the
finding. `haina.monitoring.canvas` draws and saves them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import pandas as pd
from plotnine import (
    aes,
    geom_hline,
    geom_line,
    geom_point,
    geom_text,
    geom_tile,
    ggplot,
    scale_color_manual,
    scale_fill_gradientn,
    scale_linetype_manual,
    scale_shape_manual,
    scale_size_manual,
    scale_x_continuous,
    scale_y_continuous,
    scale_y_discrete,
    theme,
)

from haina.monitoring.canvas import BLUE, GREY, INK, RED, SKY, look, titled
from haina.monitoring.history import measured, quarantines
from haina.monitoring.text import called, known, number, percent, plural
from haina.strategy.record import RoundRecord, Verdict
