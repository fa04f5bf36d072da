"""What a simulated picture shows: a landscape invented from the prompt's words and the seed.

Shapes and colours only, in units of the picture's width and height, so that one scene can be painted at any size.
It never touches a pixel; drawing.py does. The same words and seed always give the same scene.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from math import pi, sin

Colour = tuple[int, int, int]
Point = tuple[float, float]  # x from the left, y from the top, both 0 … 1


@dataclass(frozen=True)
class Palette:
    """The colours of one time of day."""

    #: Sky from the zenith down to the horizon.
    sky: tuple[Colour, Colour, Colour]
    #: Sun or moon, its glow, and every lit window.
    light: Colour
    #: The farthest and the nearest land; the layers between are mixed from them.
    far: Colour
    near: Colour
    #: True when stars are out.
    night: bool = False


DAWN = Palette(((78, 96, 158), (236, 150, 140), (255, 214, 165)), (255, 240, 205), (168, 128, 158), (52, 38, 66))
DAY = Palette(((48, 120, 206), (132, 190, 236), (226, 240, 246)), (255, 252, 232), (142, 174, 194), (34, 70, 62))
DUSK = Palette(((34, 28, 82), (182, 66, 104), (255, 158, 88)), (255, 216, 150), (140, 62, 104), (24, 16, 42))
NIGHT = Palette(((6, 10, 32), (20, 38, 84), (62, 88, 136)), (236, 240, 255), (48, 64, 112), (8, 12, 26), True)
SNOW = Palette(((96, 126, 168), (176, 198, 220), (240, 244, 250)), (255, 255, 250), (190, 206, 224), (78, 96, 122))
DESERT = Palette(((92, 142, 188), (244, 200, 142), (255, 228, 186)), (255, 246, 214), (224, 158, 104), (134, 70, 40))
FOREST = Palette(((96, 148, 150), (170, 202, 176), (232, 236, 204)), (255, 250, 214), (120, 158, 140), (16, 44, 34))
SPACE = Palette(((4, 2, 16), (34, 10, 58), (108, 36, 96)), (255, 226, 196), (58, 26, 84), (8, 4, 20), True)

#: Words that choose the time of day or the land; the first that occurs in the prompt decides.
PALETTES: dict[str, Palette] = {
    "night": NIGHT, "midnight": NIGHT, "moon": NIGHT, "stars": NIGHT, "neon": NIGHT, "cyberpunk": NIGHT,
    "space": SPACE, "galaxy": SPACE, "planet": SPACE, "alien": SPACE, "nebula": SPACE,
    "dawn": DAWN, "sunrise": DAWN, "morning": DAWN, "dusk": DUSK, "sunset": DUSK, "evening": DUSK, "fire": DUSK,
    "snow": SNOW, "winter": SNOW, "ice": SNOW, "arctic": SNOW, "desert": DESERT, "dune": DESERT, "canyon": DESERT,
    "forest": FOREST, "jungle": FOREST, "tree": FOREST, "garden": FOREST, "day": DAY, "sky": DAY, "summer": DAY,
}  # fmt: skip
WATER = ("sea", "ocean", "lake", "river", "island", "beach", "coast", "harbour", "harbor", "lighthouse", "boat", "bay")
TREES = ("forest", "jungle", "tree", "wood", "pine", "garden", "cabin", "fox", "bear", "deer")
TOWERS = ("city", "town", "street", "skyline", "cyberpunk", "neon", "castle", "robot", "tower")


@dataclass(frozen=True)
class Layer:
    """One silhouette, nearer than the layers before it."""

    outline: tuple[Point, ...]
    colour: Colour
    #: Small lit rectangles in it: (left, top, right, bottom).
    windows: tuple[tuple[float, float, float, float], ...] = ()


@dataclass(frozen=True)
class Scene:
    """Everything a painter needs, at no particular size."""

    sky: tuple[Colour, Colour, Colour]
    light: Colour
    #: Centre of the sun or moon, and its radius in units of the picture's smaller side.
    light_at: Point
    light_radius: float
    horizon: float
    layers: tuple[Layer, ...]
    water: bool
    stars: tuple[tuple[float, float, float], ...]  # x, y, brightness 0 … 1
    #: 9 × 18 grey values: the clouds, coarse; few columns and many rows make long flat ones.
    clouds: bytes = field(repr=False)
    #: A lighthouse's beam, or nothing.
    beam: tuple[Point, ...] = ()


def imagine(text: str, seed: int) -> Scene:
    """The scene of these words and this seed."""
    chance = random.Random(sha256(f"{seed}\n{text}".encode()).digest())
    words = text.lower()
    palette = next((p for word, p in PALETTES.items() if word in words), None)
    if palette is None:
        palette = chance.choice((DAWN, DAY, DUSK, NIGHT, SNOW, DESERT, FOREST))
    shift = [chance.randint(-16, 16) for _ in range(3)]
    water = any(word in words for word in WATER) or chance.random() < 0.25
    horizon = chance.uniform(0.56, 0.68)
    layers = [
        _ridge(chance, horizon, depth / 4, _tint(mix(palette.far, palette.near, depth / 4), shift))
        for depth in range(4 if water else 5)
    ]
    if any(word in words for word in TOWERS):
        layers[-2:] = [_skyline(chance, horizon + 0.14, _tint(palette.near, shift), palette.night)]
    elif any(word in words for word in TREES) or palette is FOREST:
        layers[-1:] = [_wood(chance, horizon + 0.1, _tint(palette.near, shift))]
    beam: tuple[Point, ...] = ()
    if "lighthouse" in words:
        tower, beam = _lighthouse(chance, horizon, palette.near)
        layers[-1:] = [tower]
    stars = (
        tuple((chance.random(), chance.random() * horizon, chance.random()) for _ in range(140))
        if palette.night
        else ()
    )
    return Scene(
        sky=(_tint(palette.sky[0], shift), _tint(palette.sky[1], shift), _tint(palette.sky[2], shift)),
        light=palette.light,
        light_at=(chance.uniform(0.18, 0.82), chance.uniform(0.14, horizon - 0.12)),
        light_radius=chance.uniform(0.035, 0.085),
        horizon=horizon,
        layers=tuple(layers),
        water=water,
        stars=stars,
        clouds=chance.randbytes(9 * 18),
        beam=beam,
    )


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`share` 0 gives a, 1 gives b."""
    return (
        round(a[0] + (b[0] - a[0]) * share),
        round(a[1] + (b[1] - a[1]) * share),
        round(a[2] + (b[2] - a[2]) * share),
    )


def _tint(colour: Colour, shift: list[int]) -> Colour:
    r, g, b = (max(0, min(255, part + delta)) for part, delta in zip(colour, shift, strict=True))
    return (r, g, b)


def _height(chance: random.Random, waves: int, roughness: float) -> Callable[[float], float]:
    """A smooth random curve over x 0 … 1, values about -1 … 1: a few sines, each finer and weaker."""
    parts = [(roughness**n, 2 * pi * chance.uniform(0.6, 1.4) * 2**n, chance.uniform(0, 2 * pi)) for n in range(waves)]
    total = sum(size for size, _, _ in parts)
    return lambda x: sum(size * sin(speed * x + start) for size, speed, start in parts) / total


def _ridge(chance: random.Random, horizon: float, depth: float, colour: Colour) -> Layer:
    """Mountains at the back (depth 0) grow into low hills in front (depth 1)."""
    curve = _height(chance, 7 if depth < 0.6 else 5, 0.62 if depth < 0.6 else 0.45)
    base = horizon - 0.06 + depth * 0.30
    swing = 0.20 - depth * 0.12
    points = tuple((n / 96, base - swing * curve(n / 96)) for n in range(97))
    return Layer(((0.0, 1.0), *points, (1.0, 1.0)), colour)


def _wood(chance: random.Random, base: float, colour: Colour) -> Layer:
    """A row of conifers on a low hill."""
    curve = _height(chance, 4, 0.5)
    points: list[Point] = [(0.0, 1.0)]
    x = -0.02
    while x < 1.0:
        ground = base + 0.04 * curve(x)
        width, tall = chance.uniform(0.018, 0.05), chance.uniform(0.07, 0.26)
        points.append((x, ground))
        for tier in range(1, 4):  # three steps of branches up each side
            points.append((x + width * tier * 0.14, ground - tall * tier * 0.28))
            points.append((x + width * (tier * 0.14 + 0.06), ground - tall * (tier * 0.28 - 0.05)))
        points.append((x + width / 2, ground - tall))
        for tier in range(3, 0, -1):
            points.append((x + width * (0.94 - tier * 0.14), ground - tall * (tier * 0.28 - 0.05)))
            points.append((x + width * (1 - tier * 0.14), ground - tall * tier * 0.28))
        x += width * chance.uniform(0.7, 1.15)
    return Layer((*points, (1.0, base), (1.0, 1.0)), colour)


def _skyline(chance: random.Random, base: float, colour: Colour, lit: bool) -> Layer:
    """Blocks of a town, windows lit at night and a few by day."""
    points: list[Point] = [(0.0, 1.0)]
    windows: list[tuple[float, float, float, float]] = []
    x = 0.0
    while x < 1.0:
        width, top = chance.uniform(0.035, 0.09), base - chance.uniform(0.06, 0.46) ** 1.1
        points += [(x, top), (x + width * 0.45, top), (x + width * 0.5, top - chance.choice((0, 0, 0.03, 0.05)))]
        points += [(x + width * 0.55, top), (x + width, top)]
        for column in range(1, int(width / 0.012)):
            for row in range(1, int((base + 0.16 - top) / 0.022)):
                if chance.random() < (0.42 if lit else 0.12):
                    left, upper = x + column * 0.012, top + row * 0.022
                    windows.append((left, upper, left + 0.005, upper + 0.009))
        x += width
    return Layer((*points, (1.0, 1.0)), colour, tuple(windows))


def _lighthouse(chance: random.Random, horizon: float, colour: Colour) -> tuple[Layer, tuple[Point, ...]]:
    """A tower on a rock, and the beam of its lamp."""
    x = chance.uniform(0.24, 0.76)
    foot, lamp = horizon + 0.06, horizon - chance.uniform(0.26, 0.34)
    curve = _height(chance, 6, 0.7)
    rock = [(x + (n - 20) * 0.035, foot + 0.03 + abs(n - 20) ** 1.25 * 0.011 + 0.02 * curve(n / 40)) for n in range(41)]
    tower = [
        (x - 0.032, foot + 0.05), (x - 0.019, lamp), (x - 0.026, lamp), (x - 0.026, lamp - 0.008),
        (x - 0.015, lamp - 0.008), (x - 0.015, lamp - 0.035), (x, lamp - 0.06), (x + 0.015, lamp - 0.035),
        (x + 0.015, lamp - 0.008), (x + 0.026, lamp - 0.008), (x + 0.026, lamp), (x + 0.019, lamp),
        (x + 0.032, foot + 0.05),
    ]  # fmt: skip
    outline = ((x - 0.7, 1.0), *rock[:20], *tower, *rock[21:], (x + 0.7, 1.0))
    side = chance.choice((-1.2, 1.2))
    beam = ((x, lamp - 0.026), (x + side, lamp - 0.2), (x + side, lamp + 0.02), (x, lamp - 0.016))
    return Layer(outline, colour, ((x - 0.009, lamp - 0.031, x + 0.009, lamp - 0.012),)), beam
