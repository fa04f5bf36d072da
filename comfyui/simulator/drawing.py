"""Paints scenes with Pillow: the finished picture, the steps from noise to picture, and flat pictures for benches.

It decides nothing about what is shown (scenery.py) and writes no file. Costs on one core: about 45 ms for a picture of
1024 × 1024 and about 10 ms for a preview of 512 × 512.
"""

import random
import zlib
from functools import lru_cache
from hashlib import sha256
from io import BytesIO
from struct import pack

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps, PngImagePlugin

from comfyui.simulator.scenery import Colour, Layer, Scene, mix

Pixels = Image.Image

#: Previews fit into a square of this side; a small picture is blown up to it, as the real server does.
PREVIEW_SIDE = 512


def paint(scene: Scene, width: int, height: int) -> Pixels:
    """The scene at this size, RGB."""
    # Three quarters of the size, enlarged at the end: half the work, and no edge is jagged.
    w, h = max(8, width * 3 // 4), max(8, height * 3 // 4)
    canvas = _gradient(scene.sky, w, round(h * scene.horizon) + 1, h)
    _stars(canvas, scene, w, h)
    _light(canvas, scene, w, h)
    _clouds(canvas, scene, w, h)
    for number, layer in enumerate(scene.layers):
        if scene.water and number == len(scene.layers) - 1:
            _water(canvas, scene, w, h)
        _layer(canvas, scene, layer, w, h)
    if scene.beam:
        glow = Image.new("L", (w, h), 0)
        ImageDraw.Draw(glow).polygon([(x * w, y * h) for x, y in scene.beam], fill=70)
        canvas.paste(scene.light, mask=glow.filter(ImageFilter.BoxBlur(max(1, w // 160))))
    canvas = ImageChops.multiply(canvas, _vignette(w, h))
    return canvas.resize((width, height), Image.Resampling.BICUBIC)


def _gradient(colours: tuple[Colour, Colour, Colour], w: int, depth: int, h: int) -> Pixels:
    top, middle, low = colours
    strip = Image.new("RGB", (1, 64))
    for y in range(64):
        share = y / 63
        strip.putpixel((0, y), mix(top, middle, share * 2) if share < 0.5 else mix(middle, low, share * 2 - 1))
    canvas = Image.new("RGB", (w, h), low)
    canvas.paste(strip.resize((w, depth), Image.Resampling.BILINEAR))
    return canvas


def _stars(canvas: Pixels, scene: Scene, w: int, h: int) -> None:
    draw = ImageDraw.Draw(canvas)
    for x, y, brightness in scene.stars:
        size = max(1.0, w / 640) * (0.5 + brightness)
        draw.ellipse(
            (x * w, y * h, x * w + size, y * h + size), fill=mix(scene.sky[0], scene.light, 0.3 + 0.7 * brightness)
        )


@lru_cache(maxsize=1)
def _falloff() -> Pixels:
    """Bright in the middle, dark from the rim on; 256 × 256 grey."""
    return Image.radial_gradient("L").point(lambda v: max(0, 255 - v * 255 // 180))


def _light(canvas: Pixels, scene: Scene, w: int, h: int) -> None:
    x, y = scene.light_at[0] * w, scene.light_at[1] * h
    radius = scene.light_radius * min(w, h)
    halo = round(radius * 7)
    glow = _falloff().resize((2 * halo, 2 * halo)).point(lambda v: v * v // 340)
    canvas.paste(scene.light, (round(x) - halo, round(y) - halo), glow)
    side = max(4, round(radius * 2))
    disc = Image.new("L", (side * 3, side * 3), 0)
    ImageDraw.Draw(disc).ellipse((2, 2, side * 3 - 3, side * 3 - 3), fill=255)
    canvas.paste(scene.light, (round(x) - side // 2, round(y) - side // 2), disc.resize((side, side)))


def _clouds(canvas: Pixels, scene: Scene, w: int, h: int) -> None:
    depth = max(1, round(h * scene.horizon))
    coarse = Image.frombytes("L", (9, 18), scene.clouds)
    fine = coarse.transpose(Image.Transpose.ROTATE_180).resize((96, 48), Image.Resampling.BICUBIC)
    veil = Image.blend(coarse.resize((96, 48), Image.Resampling.BICUBIC), fine, 0.35)
    strength = 70 if scene.stars else 130
    veil = veil.point(lambda v: max(0, v - 118) * strength // 137)
    canvas.paste(mix(scene.sky[2], (255, 255, 255), 0.35), mask=_fit(veil, w, depth, h))


def _fit(mask: Pixels, w: int, depth: int, h: int) -> Pixels:
    """The mask over the upper `depth` rows, fading out towards the horizon."""
    fade = Image.linear_gradient("L").transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize(mask.size)
    whole = Image.new("L", (w, h), 0)
    whole.paste(ImageChops.multiply(mask, fade).resize((w, depth), Image.Resampling.BICUBIC))
    return whole


def _layer(canvas: Pixels, scene: Scene, layer: Layer, w: int, h: int) -> None:
    top = max(0, round(min(y for _, y in layer.outline) * h) - 2)
    if top >= h:
        return
    mask = Image.new("L", (w, h - top), 0)
    ImageDraw.Draw(mask).polygon([(x * w, y * h - top) for x, y in layer.outline], fill=255)
    haze = mix(layer.colour, scene.sky[2], 0.42)
    strip = Image.new("RGB", (1, 2), layer.colour)
    strip.putpixel((0, 1), haze if layer is not scene.layers[-1] else mix(layer.colour, (0, 0, 0), 0.4))
    fill = strip.resize((w, h - top), Image.Resampling.BILINEAR)
    canvas.paste(fill, (0, top), mask.filter(ImageFilter.BoxBlur(0.6)))
    draw = ImageDraw.Draw(canvas)
    for left, upper, right, lower in layer.windows:
        draw.rectangle((left * w, upper * h, right * w, lower * h), fill=scene.light)


def _water(canvas: Pixels, scene: Scene, w: int, h: int) -> None:
    """What is above the shore, upside down and darker, broken by ripples."""
    shore = min(h - 2, round((scene.horizon + 0.09) * h))
    mirror = ImageOps.flip(canvas.crop((0, max(0, 2 * shore - h), w, shore))).resize((w, h - shore))
    tinted = Image.blend(mirror, Image.new("RGB", mirror.size, mix(scene.sky[0], scene.layers[-1].colour, 0.4)), 0.34)
    canvas.paste(tinted, (0, shore))
    draw, chance = ImageDraw.Draw(canvas), random.Random(scene.clouds)
    for row in range(46):
        y = shore + (h - shore) * (row / 46) ** 1.5
        x = (scene.light_at[0] + chance.gauss(0, 0.06 + row / 300)) * w
        reach = w * chance.uniform(0.01, 0.05) * (0.5 + row / 46)
        shade = mix(scene.sky[2], scene.light, 0.7)
        draw.line((x - reach, y, x + reach, y), fill=shade, width=max(1, h * row // 46 // 340))


@lru_cache(maxsize=4)
def _vignette(w: int, h: int) -> Pixels:
    rim = Image.radial_gradient("L").point(lambda v: 255 - max(0, v - 110) * 70 // 145)
    return Image.merge("RGB", [rim.resize((w, h), Image.Resampling.BILINEAR)] * 3)


def preview_jpeg(picture: Pixels, seed: int, progress: float) -> bytes:
    """One step of the way from noise (progress 0) to the picture (1), as JPEG, fitted into the preview square."""
    scale = PREVIEW_SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    detail = max(8, round(96 * progress * progress) * 4)  # the picture sharpens as it comes out of the noise
    blurred = picture.resize((max(1, detail * size[0] // 512), max(1, detail * size[1] // 512)), reducing_gap=1.5)
    grain = random.Random(f"{seed} {progress}").randbytes(64 * 64 * 3)
    noise = Image.frombytes("RGB", (64, 64), grain).resize(size, Image.Resampling.NEAREST)
    mixed = Image.blend(noise, blurred.resize(size, Image.Resampling.BICUBIC), progress**0.6)
    return encode(mixed, "JPEG")


def encode(picture: Pixels, kind: str) -> bytes:
    """The bytes the server puts on the socket: JPEG or PNG with its quality settings."""
    buffer = BytesIO()
    picture.save(buffer, format=kind, quality=95, compress_level=1)
    return buffer.getvalue()


def png_with_text(picture: Pixels, texts: dict[str, str]) -> bytes:
    """A PNG carrying the text chunks that SaveImage writes (prompt, workflow)."""
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    buffer = BytesIO()
    picture.save(buffer, format="PNG", pnginfo=info, compress_level=1)
    return buffer.getvalue()


def colour_of(seed: int, text: str) -> Colour:
    """One colour that stands for these words and this seed where nothing is painted."""
    digest = sha256(f"{seed}\n{text}".encode()).digest()
    return (digest[0], digest[1], digest[2])


def flat_png(width: int, height: int, colour: Colour, texts: dict[str, str]) -> bytes:
    """A valid one-colour PNG of this size, made in microseconds: no pixel is compressed, only a palette is set."""
    chunks = [(b"IHDR", pack(">IIBBBBB", width, height, 1, 3, 0, 0, 0)), (b"PLTE", bytes(colour))]
    chunks += [(b"tEXt", key.encode("latin-1") + b"\0" + text.encode()) for key, text in texts.items()]
    chunks += [(b"IDAT", _blank_rows(width, height)), (b"IEND", b"")]
    body = b"".join(pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


@lru_cache(maxsize=16)
def _blank_rows(width: int, height: int) -> bytes:
    return zlib.compress(bytes((width + 7) // 8 + 1) * height, 1)


@lru_cache(maxsize=1)
def flat_jpeg() -> bytes:
    """A small grey JPEG: the preview where nothing is painted."""
    return encode(Image.new("RGB", (64, 64), (128, 128, 128)), "JPEG")
