import importlib.util
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from haina.errors import RunError
from haina.monitoring.page import page, write
from haina.simulation.rundir import RunDir
from haina.strategy.record import ClientRecord, Verdict

HOSTILE = '<script>alert("x")</script><img src=//evil.example/a onerror=b>&amp;\'"'
VOID = {"meta", "img"}
ELEMENTS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "header",
        "section",
        "h1",
        "h2",
        "p",
        "ul",
        "li",
    ),
    *("dl", "div", "dt", "dd", "figure", "img", "table", "caption", "thead", "tbody", "tr", "th", "td"),
}


class Sheet(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], set(), [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def hostile(records):
    mallory = ClientRecord(
        HOSTILE, Verdict.FAILED, 0.0, factors={HOSTILE: 1.0}, evidence={HOSTILE: 1.0}, reason=HOSTILE
    )
    return [
        replace(record, clients=(mallory, *record.clients), decisions={HOSTILE: HOSTILE}, reason=HOSTILE)
        for record in records
    ]


@pytest.mark.parametrize("spoil", [lambda records: records, hostile])
def test_the_page_is_whole_and_quiet(by_hand, spoil):
    text = page(spoil(by_hand), name="North", seed=7, pictures={"accuracy": b"<svg/>"})
    sheet = Sheet(text)
    assert sheet.tags <= ELEMENTS
    names = {name for name, _ in sheet.attributes}
    assert not {name for name in names if name.startswith("on")}
    assert "href" not in names
    assert all(
        value.startswith("data:image/svg+xml;base64,") for name, value in sheet.attributes if name == "src"
    )
    assert not re.search(r"url\(|@import|https?:", text)


def test_hostile_names_are_shown_as_they_are(by_hand):
    sheet = Sheet(page(hostile(by_hand), name=HOSTILE, seed=7, pictures={}))
    assert HOSTILE[:39] + "…" in sheet.words
    assert HOSTILE in sheet.words


def test_the_page_says_what_matters(by_hand):
    words = " ".join(Sheet(page(by_hand, name="North", seed=7, pictures={})).words)
    for said in (
        "North",
        "95.0%",
        "95.0% in round 5",
        f"{5:064x}",
        "mallory: from round 3, released in round 5",
        "On probation, 1 time in all: mallory (1×).",
        "samples 500, gate 1",
        "Nothing to draw",
    ):
        assert said in words


def stored(records, folder):
    (folder / "federation.toml").write_text('name = "North"\nseed = 41\n')
    lines = [json.dumps(record.to_json()) for record in records]
    (folder / "rounds.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return RunDir(folder)


def test_a_run_without_the_extra_is_reported_without_pictures(by_strategy, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    [path] = write(stored(by_strategy(), tmp_path))
    assert path == tmp_path / "report" / "report.html"
    words = " ".join(Sheet(path.read_text()).words)
    assert "pip install 'haina[plots]'" in words
    assert "North" in words
    assert "41" in words


def test_a_run_without_rounds_has_no_report(tmp_path):
    with pytest.raises(RunError, match="no round has closed"):
        write(stored([], tmp_path))
    with pytest.raises(RunError, match="is not the folder of a run"):
        write(RunDir(tmp_path / "nowhere"))


def test_a_run_is_reported_with_every_picture(by_hand, tmp_path):
    pytest.importorskip("plotnine")
    page, *pictures = write(stored(by_hand, tmp_path))
    first = page.read_bytes()
    assert [path.name for path in pictures] == ["accuracy.png", "loss.png", "shares.png", "trust.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    assert Sheet(first.decode()).tags >= {"figure", "img"}
    assert first.count(b"data:image/svg+xml;base64,") == 4
    assert write(stored(by_hand, tmp_path))[0].read_bytes() == first
