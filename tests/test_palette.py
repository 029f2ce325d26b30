"""The palettes as people see them who lack a kind of cone: categories stay apart, scales stay in order.

Colours are simulated after Machado, Oliveira and Fernandes (2009, IEEE TVCG 15(6), 1291–1298) at full severity, and
compared in CAM02-UCS (Luo, Cui and Li, 2006, Color Research & Application 31(4), 320–330), where a distance of 1 is
about what is just noticed side by side; both are colorspacious's. What is asked is far more: Petroff (2021,
arXiv:2107.02270) keeps a minimum of 16–20 between colours that alone tell lines of a chart apart. Here no colour
stands alone, so half of that is asked: 10. Only channels have a hue each, and stand with their names; experts and
efforts have none: they are told by number, name and place, and curves by dashes and names at their ends. Grey, for a
channel of another name than Harmony's, is no hue and not among the categories.
The scales are read as amounts: their lightness goes one way, by at least 4 from stop to stop.
"""

import json
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colorspacious import cspace_convert
from node import node

PALETTE = Path(__file__).parents[1] / "widgets" / "js" / "palette.js"
KINDS = ("none", "protanomaly", "deuteranomaly", "tritanomaly")
APART = 10.0


@pytest.fixture(scope="module")
def palette() -> Any:
    """Read the colours from the module that the views use."""
    program = f"""
        import {{ CHANNEL_COLOURS, DIVERGING, RAMP }} from {json.dumps(PALETTE.as_uri())};
        console.log(JSON.stringify({{ channels: CHANNEL_COLOURS, diverging: DIVERGING, ramp: RAMP }}));
    """
    done = subprocess.run([node(), "--input-type=module", "-e", program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def seen(colours: list[str], kind: str) -> Any:
    """Return colours, ``#rrggbb``, as J', a', b' [colour, 3] of CAM02-UCS, as people of this kind see them."""
    rgb = np.array([[int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] for colour in colours])
    if kind != "none":
        rgb = cspace_convert(rgb, {"name": "sRGB1+CVD", "cvd_type": kind, "severity": 100}, "sRGB1").clip(0, 1)
    return cspace_convert(rgb, "sRGB1", "CAM02-UCS")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_channels_stay_apart(palette: Any, theme: str, kind: str) -> None:
    named = {name: colour for name, colour in palette["channels"][theme].items() if name != "unknown"}
    assert len(named) == 7
    place = dict(zip(named, seen(list(named.values()), kind), strict=True))
    near = {(a, b): float(np.linalg.norm(place[a] - place[b])) for a, b in combinations(named, 2)}
    assert {pair: distance for pair, distance in near.items() if distance < APART} == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_scales_stay_in_order(palette: Any, theme: str, kind: str) -> None:
    steps = np.diff(seen(palette["ramp"][theme], kind)[:, 0])
    assert (np.sign(steps) == (-1 if theme == "light" else 1)).all()
    assert np.abs(steps).min() >= 4
    less, middle, more = np.split(seen(palette["diverging"][theme], kind), [2, 3])
    for side in (less[::-1], more):
        away = np.abs(np.diff(np.concatenate([middle, side])[:, 0], axis=0))
        assert away.min() >= 4, "more of a contrast is further from the ground"
    assert np.linalg.norm(less[0] - more[-1]) >= APART
    assert np.linalg.norm(less[1] - more[0]) >= APART


def test_the_check_can_fail() -> None:
    """A red and a green of like lightness are apart for most, and not for who lacks the middle cones."""
    pair = ["#c05a3c", "#7a7a2c"]
    apart = [float(np.linalg.norm(np.diff(seen(pair, kind), axis=0))) for kind in ("none", "deuteranomaly")]
    assert apart[0] > 2 * APART
    assert apart[1] < APART
