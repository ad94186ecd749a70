import struct
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from haina.errors import RunError

pytest.importorskip("plotnine")

from haina.monitoring import plots


def renamed(records, name):
    """The same run with a client of another name."""
    return [
        replace(
            r,
            clients=tuple(replace(c, client=name if c.client == "mallory" else c.client) for c in r.clients),
        )
        for r in records
    ]


def test_a_png_is_1600_by_900_and_the_same_every_time(by_hand, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("svg")
    try:
        path = tmp_path / "accuracy.png"
        plots.save(plots.accuracy(by_hand, window=2), path)
        data = path.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">II", data[16:24]) == (1600, 900)
        assert plots.draw(plots.accuracy(by_hand, window=2), "png") == data
        assert matplotlib.get_backend().lower() == "svg"
    finally:
        matplotlib.use("agg")


def test_names_are_drawn_as_they_are_and_not_as_mathematics(by_hand, tmp_path):
    path = tmp_path / "shares.svg"
    for name in (r"$\frac{$", "$a$", "海纳", "<b>&"):
        plots.save(plots.shares(renamed(by_hand, name)), path)
        assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_titles_say_the_finding(by_hand):
    assert plots.accuracy(by_hand).labels.title == (
        "Accuracy reached 90% in round 2, and was below it in 1 later round; it ended\nat 95.0%"
    )
    assert plots.loss(by_hand).labels.title == "Loss fell from 1 to 0.2"
    assert plots.shares(by_hand).labels.title.replace("\n", " ") == (
        "The largest share of a round was 60.0%; 1 client in quarantine got nothing"
    )
    assert plots.trust(by_hand).labels.title == "1 of 3 clients lost trust and came into quarantine"
    informed = plots.trust(by_hand, {"mallory"}).labels
    assert informed.title == "1 of 1 hostile client came into quarantine, and none of the 2 honest"
    assert informed.subtitle.endswith("× quarantine begins, ○ it ends")


def test_many_clients_become_few_rows(by_hand):
    many = [
        replace(
            r,
            clients=tuple(
                replace(c, client=f"{c.client}{i}", share=(c.share or 0) / 50)
                for c in r.clients[:3]
                for i in range(50)
            ),
        )
        for r in by_hand
    ]
    picture = plots.shares(many)
    assert picture.data["row"].nunique() == 20
    by_row = picture.data.groupby("column")["share"]
    assert by_row.count().max() == 20
    assert plots.shares(by_hand).data["row"].nunique() == 3


def test_runs_with_nothing_to_show_give_no_picture(by_hand, by_strategy):
    bare = [replace(record, metrics={}) for record in by_strategy("median")]
    assert plots.pictures(bare) == {}
    assert set(plots.pictures(by_strategy("krum"))) == {"accuracy", "loss", "shares"}
    assert set(plots.pictures(by_hand)) == {"accuracy", "loss", "shares", "trust"}


def test_one_round_is_drawn_without_a_line(by_hand):
    for picture in plots.pictures(by_hand[:1]).values():
        assert plots.draw(picture, "svg").startswith(b"<?xml")


def test_only_known_formats_are_written(by_hand, tmp_path):
    with pytest.raises(RunError, match=r"'\.bmp'"):
        plots.save(plots.loss(by_hand), tmp_path / "loss.bmp")
