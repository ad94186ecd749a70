"""`haina new`: a project that runs at once, to be changed piece by piece."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import numpy as np

from haina.cli.talk import console, data
from haina.errors import ConfigError, RunError

TEMPLATES = ("jax", "torch", "glm", "forest", "r")


def new(path: Path, template: str) -> None:
    """Make a project folder from a template.

    Raises:
        ConfigError: no such template, or a name that cannot be a federation's.
        RunError: the folder holds something already.
    """
    if template not in TEMPLATES:
        raise ConfigError(f"there is no template {template!r}", allowed=", ".join(TEMPLATES))
    name = path.resolve().name
    if not re.fullmatch(r"\w[\w .-]{0,79}", name):
        raise ConfigError(
            f"{name!r} cannot name a federation", allowed="letters, digits, spaces, '.', '_' and '-'"
        )
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(f"{path} is there already", remedy="Choose another name, or empty the folder")
    path.mkdir(parents=True, exist_ok=True)
    for source in files("haina.cli").joinpath("templates", template).iterdir():
        if source.is_file():
            text = source.read_text(encoding="utf-8").replace('name = "NAME"', f'name = "{name}"')
            (path / source.name).write_text(text, encoding="utf-8")
    if template in ("glm", "r"):
        _hospitals(path)
    for made in sorted(path.iterdir()):
        data(str(made))
    console.print(f"Run it: cd {path} && haina run federation.toml")


def _hospitals(path: Path) -> None:
    """Three small tables of made-up patients; hospital-c has no surgical ward."""
    rng = np.random.default_rng(2026)
    for site, rows, wards in (("a", 240, "msi"), ("b", 180, "msi"), ("c", 120, "mi")):
        names = {"m": "medical", "s": "surgical", "i": "intensive"}
        age, stay = rng.normal(64, 12, rows), rng.gamma(2.0, 3.0, rows)
        ward = rng.choice(list(wards), rows)
        risk = -4.5 + 0.04 * age + 0.1 * stay + 0.8 * (ward == "i") - 0.4 * (ward == "s")
        readmitted = rng.random(rows) < 1 / (1 + np.exp(-risk))
        lines = [
            f"{a:.1f},{s:.1f},{names[w]},{int(r)}"
            for a, s, w, r in zip(age, stay, ward, readmitted, strict=True)
        ]
        text = "\n".join(["age,stay,ward,readmitted", *lines]) + "\n"
        (path / f"hospital-{site}.csv").write_text(text, encoding="utf-8")
