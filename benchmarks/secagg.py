"""Secure sums: processor time of a member and of the server, beside Flower's SecAgg+.

    ./dev bench secagg
    ./dev bench secagg --members 20 50 --runs 1
    ./dev bench secagg --peer-python /path/to/an/environment/with/flwr/bin/python

Groups of 20, 50 and 100 members add up updates of 100,000 and 1,000,000 float32 parameters; each has 19 or 20 neighbours, 12 or 13 shares open a
secret, and a tenth vanishes after it has shared. Both sides bound, weigh, round and mask the same vectors and must find the same mean; ours must find
the sum of the rounded vectors to the last bit. Each side runs its own functions in one process of its own, with no wire and no serialising; the two
take turns case by case, so that a busy machine slows both alike. What is compared is CPU seconds (`time.process_time`): of a member, the sum of the
medians of its steps; of the server, all it does. Medians of the runs, with their range.

A member of ours does more: it checks the signature of every neighbour's keys, and that more than half of the group agreed on who uploaded. The second
grows with the group while the number of neighbours does not, so the bar for members is held at 20, and the larger groups are shown as they are.

Then masking alone in GB/s; drop-outs from none to one too many before each step; and 1,000 members with neighbours as planned for 20 % corrupt ones.
The table goes to stdout, and its last line is one JSON object: every figure, and whether the bars hold.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
#: numpy as in our own environment.
PEER = ("flwr==1.41.0", "numpy==2.4.6")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
MEMBERS, DIMENSIONS = (20, 50, 100), (100_000, 1_000_000)
#: Times less processor time, by length: of a member in a group of `HELD`, and of the server.
CLIENT_BAR, SERVER_BAR, HELD = {100_000: 10.0, 1_000_000: 7.0}, {100_000: 100.0, 1_000_000: 25.0}, 20
MASKING_BAR, THOUSAND_BAR = 5.0, 2.0
#: Means may differ by so much: Flower's words have 22 bits.
TOLERANCE = 1e-5

Ask = Callable[..., dict[str, Any]]


@contextmanager
def child(python: Path, script: str) -> Iterator[tuple[Ask, dict[str, Any]]]:
    """A process that runs one side: what asks it, and what it said of itself."""
    command = [str(python), str(HERE / "secagg_peers" / script)]
    # Flower says on standard error what it does; nothing of it is wanted unless the process dies.
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if "flower" in script else None,
        text=True,
        env={**os.environ, **ONE_THREAD},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(**task: Any) -> dict[str, Any]:
            assert process.stdin is not None
            assert process.stdout is not None
            if task:
                process.stdin.write(json.dumps(task) + "\n")
                process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"{script} stopped; run it by itself to see why")
            answer: dict[str, Any] = json.loads(line)
            return answer

        try:
            yield ask, ask()
        finally:
            process.stdin.close()


def peer_python(given: Path | None) -> Path:
    """The interpreter that has Flower: the one named, or an environment made once beside the project's own."""
    if given is not None:
        return given
    home = HERE.parent / ".venvs" / "secagg-flower"
    python, ready, wanted = home / "bin" / "python", home / ".ready", "\n".join(PEER)
    if not ready.exists() or ready.read_text() != wanted:
        print(f"Making an environment for {', '.join(PEER)} in {home} (once)", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEER]
        if subprocess.run(install, check=False).returncode:
            raise SystemExit("flwr could not be installed; name an interpreter that has it (--peer-python)")
        ready.write_text(wanted)
    return python


def measure(members: int, dimension: int, runs: int, haina: Ask, peer: Ask) -> dict[str, Any]:
    """Both sides of one case, taking turns."""
    degree = min(20, members - 1)
    task = {
        "task": "play",
        "members": members,
        "dimension": dimension,
        "degree": degree,
        "threshold": round(0.6 * (degree + 1)),
    }
    # Flower's largest groups take half a minute of processor time each; ours are over in three seconds.
    turns = runs if members < 100 else 1
    here, there = [], []
    for turn in range(runs):
        here.append(haina(**task))
        if turn < turns:
            there.append(peer(**task))
    row: dict[str, Any] = {"members": members, "dimension": dimension, "degree": degree}
    for side, answers in (("haina", here), ("peer", there)):
        for part in ("client", "server"):
            times = [answer[part] for answer in answers]
            row[f"{side}_{part}"], row[f"{side}_{part}_range"] = median(times), [min(times), max(times)]
            row[f"{side}_{part}_steps"] = answers[-1][f"{part}_steps"]
        row[f"{side}_upload"] = answers[-1]["upload"]
        row[f"{side}_error"] = max(answer["error"] for answer in answers)
    for part in ("client", "server"):
        row[f"{part}_ratio"] = row[f"peer_{part}"] / row[f"haina_{part}"]
    row["exact"] = all(answer["exact"] for answer in here)
    row["held"] = members == HELD
    row["holds"] = (
        row["exact"]
        and max(row["haina_error"], row["peer_error"]) <= TOLERANCE
        and row["server_ratio"] >= SERVER_BAR.get(dimension, 0)
        and (not row["held"] or row["client_ratio"] >= CLIENT_BAR.get(dimension, 0))
    )
    return row


def spread(row: Mapping[str, Any], what: str) -> str:
    """Milliseconds: median and range as text."""
    low, high = row[f"{what}_range"]
    return f"{1e3 * row[what]:.1f} ({1e3 * low:.1f}-{1e3 * high:.1f})"


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The rows as text."""
    for part, bars in (("client", CLIENT_BAR), ("server", SERVER_BAR)):
        what = "a member" if part == "client" else "the server"
        yield f"\nCPU of {what}, ms: median (range)"
        yield f"{'members':>7} {'d':>9}  {'haina':>22}  {'flwr':>28}  {'ratio':>7}"
        for row in rows:
            held = part == "server" or row["held"]
            bar = f"  (bar {bars[row['dimension']]:.0f})" if held and row["dimension"] in bars else ""
            yield (
                f"{row['members']:7} {row['dimension']:9}  {spread(row, f'haina_{part}'):>22}"
                f"  {spread(row, f'peer_{part}'):>28}  {row[f'{part}_ratio']:6.1f}x{bar}"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and the JSON line; 0 if the bars hold, else 1."""
    parser = argparse.ArgumentParser(
        description="Secure sums: Haina and Flower, CPU seconds on one thread.", allow_abbrev=False
    )
    parser.add_argument(
        "--peer-python",
        type=Path,
        help="an interpreter with flwr (default: .venvs/secagg-flower, made when missing)",
    )
    parser.add_argument("--runs", type=int, default=3, help="turns of each side (Flower's largest groups: 1)")
    parser.add_argument("--members", type=int, nargs="+", default=MEMBERS, help="sizes of groups")
    parser.add_argument("--dimensions", type=int, nargs="+", default=DIMENSIONS, help="lengths of updates")
    parser.add_argument("--no-thousand", action="store_true", help="leave out 1,000 members (100 seconds)")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    with (
        child(Path(sys.executable), "with_haina.py") as (haina, ours),
        child(peer_python(options.peer_python), "with_flower.py") as (peer, theirs),
    ):
        machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, one thread each"
        print(f"haina {ours['version']} (cryptography {ours['cryptography']}) and flwr {theirs['version']}")
        print(f"{machine}; NumPy {ours['numpy']} and {theirs['numpy']}", flush=True)
        # Warm both up.
        for side in (haina, peer):
            side(task="play", members=5, dimension=1000, degree=4, threshold=4)
        for dimension in options.dimensions:
            for members in options.members:
                rows.append(measure(members, dimension, options.runs, haina, peer))
        print("\n".join(table(rows)), flush=True)
        masking = {words: haina(task="masking", words=words)["rates"] for words in DIMENSIONS}
        rates = {words: median(found) for words, found in masking.items()}
        print("\nMasking, GB/s of words masked by CPU second: median (range)")
        for words, found in masking.items():
            bar = f"  (bar {MASKING_BAR:.0f})" if words == max(masking) else ""
            print(f"  {words:9} words  {median(found):.1f} ({min(found):.1f}-{max(found):.1f}){bar}")
        exact = haina(task="exact", members=20)
        print(
            f"\nDrop-outs of 0 to {exact['most'] + 1} of 20 before each of four steps: {exact['sums']} sums,"
            f" {exact['refusals']} refusals where too few were left, {exact['wrong']} wrong"
        )
        thousand: dict[str, Any] = {}
        if not options.no_thousand:
            thousand = haina(task="play", members=1000, dimension=100_000, corrupt=0.2)
            degree, threshold, least = thousand["numbers"]
            print(
                f"\n1,000 members x 100,000, 100 of them vanish; {degree} neighbours, {threshold} shares, {least} agree:"
                f" server {thousand['server']:.2f} s CPU (bar {THOUSAND_BAR:.0f}), a member"
                f" {1e3 * thousand['client']:.0f} ms, exact: {thousand['exact']}",
                flush=True,
            )
    bars = {
        "rows": all(row["holds"] for row in rows),
        "masking": rates[max(rates)] >= MASKING_BAR,
        "exact": exact["wrong"] == 0 and exact["refusals"] > 0,
        "thousand": not thousand or (thousand["exact"] and thousand["server"] < THOUSAND_BAR),
    }
    holds = all(bars.values())
    verdicts = ", ".join(f"{name} {'hold' if kept else 'FAIL'}" for name, kept in bars.items())
    print(f"\nThe bars: {verdicts}")
    print(
        json.dumps(
            {
                "benchmark": "secagg",
                "holds": holds,
                "bars": bars,
                "ratios": {
                    f"{part}, {row['members']} x {row['dimension']}": round(row[f"{part}_ratio"], 1)
                    for row in rows
                    for part in ("client", "server")
                },
                "masking": rates,
                "exact": exact,
                "thousand": thousand,
                "rows": rows,
                "versions": {"haina": ours, "flwr": theirs},
                "machine": machine,
            }
        )
    )
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
