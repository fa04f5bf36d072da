"""What each node class does, on pictures that are painted, flat, or not there yet.

A node gets its inputs by name and a Context for everything outside them; it gives its outputs and, if it has any, what
the page shows. Pixels are worked on in a thread, waiting is done by the Context.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageFilter, ImageOps

from comfyui.simulator import drawing
from comfyui.simulator.context import OUT_OF_MEMORY, Batch, Context, Latent, NodeFailure, Outcome, Picture, as_text
from comfyui.simulator.folders import Outside
from comfyui.simulator.mischief import Mischief
from comfyui.simulator.scenery import imagine

Run = Callable[..., Awaitable[Outcome]]
RUN: dict[str, Run] = {}


def node(name: str) -> Callable[[Run], Run]:
    """Registers what the class of this name does."""

    def register(run: Run) -> Run:
        RUN[name] = run
        return run

    return register


async def _load(context: Context, kind: str, name: str) -> None:
    file = context.rig.folders.model(kind, name)
    size_bytes = file.stat().st_size if file is not None else 0
    if context.rig.memory.load(name, size_bytes):
        context.rig.journal.note("loads", model=name)
        await context.spend(context.rig.pace.load_s(size_bytes))


@node("CheckpointLoaderSimple")
async def load_checkpoint(context: Context, ckpt_name: str) -> Outcome:
    await _load(context, "checkpoints", ckpt_name)
    return Outcome((ckpt_name, ckpt_name, ckpt_name))


@node("VAELoader")
async def load_vae(context: Context, vae_name: str) -> Outcome:
    return Outcome((vae_name,))


@node("UpscaleModelLoader")
async def load_upscaler(context: Context, model_name: str) -> Outcome:
    return Outcome((model_name,))


@node("LoraLoader")
async def load_lora(context: Context, model: str, clip: str, lora_name: str, **strengths: float) -> Outcome:
    return Outcome((f"{model}+{lora_name}", f"{clip}+{lora_name}"))


@node("LoraLoaderModelOnly")
async def load_model_lora(context: Context, model: str, lora_name: str, strength_model: float) -> Outcome:
    return Outcome((f"{model}+{lora_name}",))


@node("CLIPSetLastLayer")
async def set_last_layer(context: Context, clip: str, stop_at_clip_layer: int) -> Outcome:
    return Outcome((clip,))


@node("CLIPTextEncode")
async def encode_text(context: Context, text: str, clip: str) -> Outcome:
    await context.spend(context.rig.pace.words_s())
    return Outcome((text,))


@node("EmptyLatentImage")
async def empty_latent(context: Context, width: int, height: int, batch_size: int) -> Outcome:
    return Outcome((Latent(width // 8 * 8, height // 8 * 8, batch_size),))


@node("LatentUpscale")
async def upscale_latent(context: Context, samples: Latent, width: int, height: int, **how: str) -> Outcome:
    return Outcome((_resized(samples, width, height),))


@node("LatentUpscaleBy")
async def upscale_latent_by(context: Context, samples: Latent, upscale_method: str, scale_by: float) -> Outcome:
    return Outcome((_resized(samples, round(samples.width * scale_by), round(samples.height * scale_by)),))


@node("RepeatLatentBatch")
async def repeat_latent(context: Context, samples: Latent, amount: int) -> Outcome:
    return Outcome((Latent(samples.width, samples.height, samples.count * amount, samples.pictures * amount),))


@node("LatentCut")
async def cut_latent(context: Context, samples: Latent, dim: str, index: int, amount: int) -> Outcome:
    return Outcome((samples,))


def _resized(latent: Latent, width: int, height: int) -> Latent:
    pictures = tuple(_scale(picture, width, height) for picture in latent.pictures)
    return Latent(width, height, latent.count, pictures)


@node("KSampler")
async def sample(
    context: Context,
    *,
    model: str,
    seed: int,
    steps: int,
    positive: str,
    negative: str,
    latent_image: Latent,
    denoise: float,
    **settings: Any,
) -> Outcome:
    latent = latent_image
    missing = context.rig.memory.missing_bytes(latent.width, latent.height, latent.count)
    if missing:
        text = f"CUDA out of memory. Tried to allocate {missing / 2**30:.2f} GiB."
        raise NodeFailure(OUT_OF_MEMORY, text)
    painting = asyncio.create_task(_draw(context, latent, positive, seed, denoise))
    try:
        step_s = context.rig.pace.step_s(latent.width, latent.height, latent.count)
        for step in range(1, steps + 1):
            if step == (steps + 1) // 2:
                await context.midway()
            await context.spend(step_s)
            await context.tick(step, steps, await _preview(context, painting, seed, step / steps))
        return Outcome((Latent(latent.width, latent.height, latent.count, await painting),))
    finally:
        painting.cancel()


async def _draw(context: Context, latent: Latent, words: str, seed: int, denoise: float) -> tuple[Picture, ...]:
    """The finished pictures of a sampler, one seed apart; where something was in the latent it shows through."""
    width, height = latent.width, latent.height
    if context.rig.idle_work:
        return tuple(Picture(width, height, drawing.colour_of(seed + n, words)) for n in range(latent.count))

    def draw(number: int) -> Picture:
        pixels = drawing.paint(imagine(words, seed + number), width, height)
        if latent.pictures and denoise < 1:
            pixels = Image.blend(latent.pictures[number].painted().resize(pixels.size), pixels, denoise)
        return Picture(width, height, pixels=pixels)

    return tuple([await asyncio.to_thread(draw, number) for number in range(latent.count)])


async def _preview(
    context: Context, painting: "asyncio.Task[tuple[Picture, ...]]", seed: int, progress: float
) -> tuple[str, bytes] | None:
    if not context.rig.previews:
        return None
    if context.rig.idle_work:
        return ("JPEG", drawing.flat_jpeg())
    first = (await asyncio.shield(painting))[0]
    return ("JPEG", await asyncio.to_thread(drawing.preview_jpeg, first.painted(), seed, progress))


@node("VAEDecode")
async def decode(context: Context, samples: Latent, vae: str) -> Outcome:
    await context.spend(context.rig.pace.decode_s(samples.width, samples.height, samples.count))
    pictures = samples.pictures or (Picture(samples.width, samples.height, (127, 127, 127)),) * samples.count
    return Outcome((list(pictures),))


@node("VAEEncode")
async def encode(context: Context, pixels: Batch, vae: str) -> Outcome:
    width, height = pixels[0].width // 8 * 8, pixels[0].height // 8 * 8
    await context.spend(context.rig.pace.decode_s(width, height, len(pixels)))
    return Outcome((Latent(width, height, len(pixels), tuple(pixels)),))


@node("EmptyImage")
async def empty_image(context: Context, width: int, height: int, batch_size: int, color: int) -> Outcome:
    needed = width * height * batch_size * 4
    if needed > 2**40:  # no computer this stands for has a terabyte
        text = (
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
            f"you tried to allocate {needed} bytes. Error code 12 (Cannot allocate memory)"
        )
        raise NodeFailure("RuntimeError", text)
    return Outcome(([Picture(width, height, (color >> 16 & 255, color >> 8 & 255, color & 255))] * batch_size,))


@node("LoadImage")
async def load_image(context: Context, image: str) -> Outcome:
    file = context.rig.folders.picture(image)

    def read() -> tuple[Picture, Picture]:
        with Image.open(file) as opened:
            pixels = ImageOps.exif_transpose(opened)
            clear = pixels.getchannel("A") if "A" in pixels.getbands() else Image.new("L", (64, 64), 255)
            mask = ImageOps.invert(clear)
            rgb = pixels.convert("RGB")
        return Picture(*rgb.size, pixels=rgb), Picture(*mask.size, pixels=mask)

    picture, mask = await asyncio.to_thread(read)
    return Outcome(([picture], [mask]))


@node("ImageInvert")
async def invert(context: Context, image: Batch) -> Outcome:
    def inverted(picture: Picture) -> Picture:
        if picture.pixels is not None:
            return picture.map(ImageOps.invert)
        r, g, b = picture.colour
        return Picture(picture.width, picture.height, (255 - r, 255 - g, 255 - b))

    return Outcome((await _each(image, inverted),))


async def _each(pictures: Sequence[Picture], work: Callable[[Picture], Picture]) -> Batch:
    """The work done on every picture, in a thread where there are pixels to move."""
    if all(picture.pixels is None for picture in pictures):
        return [work(picture) for picture in pictures]
    return await asyncio.to_thread(lambda: [work(picture) for picture in pictures])


def _scale(picture: Picture, width: int, height: int, crop: bool = False, how: str = "bicubic") -> Picture:
    """The picture at another size; 0 for one side keeps the proportions, as the real node does."""
    if width == 0 and height == 0:
        return picture
    width = width or max(1, round(picture.width * height / picture.height))
    height = height or max(1, round(picture.height * width / picture.width))
    if picture.pixels is None:
        return Picture(width, height, picture.colour)
    resampling = {"nearest-exact": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}.get(
        how, Image.Resampling.BOX if how == "area" else Image.Resampling.BICUBIC
    )
    if crop:
        return picture.map(lambda pixels: ImageOps.fit(pixels, (width, height), resampling))
    return picture.map(lambda pixels: pixels.resize((width, height), resampling))


@node("ImageScale")
async def scale(context: Context, *, image: Batch, upscale_method: str, width: int, height: int, crop: str) -> Outcome:
    return Outcome((await _each(image, lambda p: _scale(p, width, height, crop == "center", upscale_method)),))


@node("ImageScaleBy")
async def scale_by(context: Context, image: Batch, upscale_method: str, scale_by: float) -> Outcome:
    def scaled(picture: Picture) -> Picture:
        return _scale(picture, round(picture.width * scale_by), round(picture.height * scale_by), how=upscale_method)

    return Outcome((await _each(image, scaled),))


@node("ImageBlur")
async def blur(context: Context, image: Batch, blur_radius: int, sigma: float) -> Outcome:
    await context.spend(context.rig.pace.filter_s(image[0].width, image[0].height, len(image)))

    def blurred(picture: Picture) -> Picture:
        return picture if picture.pixels is None else picture.map(lambda p: p.filter(ImageFilter.GaussianBlur(sigma)))

    return Outcome((await _each(image, blurred),))


@node("ImageBatch")
async def batch(context: Context, image1: Batch, image2: Batch) -> Outcome:
    first = image1[0]
    return Outcome((image1 + await _each(image2, lambda p: _scale(p, first.width, first.height, crop=True)),))


@node("RepeatImageBatch")
async def repeat_batch(context: Context, image: Batch, amount: int) -> Outcome:
    return Outcome((image * amount,))


@node("ImageFromBatch")
async def from_batch(context: Context, image: Batch, batch_index: int, length: int) -> Outcome:
    start = min(batch_index, len(image) - 1)
    return Outcome((image[start : start + length],))


@node("ImageUpscaleWithModel")
async def upscale_with_model(context: Context, upscale_model: str, image: Batch) -> Outcome:
    factor = int(upscale_model[0]) if upscale_model[0] in "248" else 4
    first = image[0]
    tiles = -(-first.width // 512) * -(-first.height // 512) * len(image)
    for tile in range(1, tiles + 1):
        await context.spend(context.rig.pace.tile_s())
        await context.tick(tile, tiles, None)
    return Outcome((await _each(image, lambda p: _scale(p, p.width * factor, p.height * factor)),))


@node("SaveImage")
async def save_image(context: Context, images: Batch, filename_prefix: str) -> Outcome:
    return Outcome(shown={"images": await _save(context, images, "output", filename_prefix)})


@node("PreviewImage")
async def preview_image(context: Context, images: Batch) -> Outcome:
    prefix = f"ComfyUI_temp_{context.letters}"
    return Outcome(shown={"images": await _save(context, images, "temp", prefix)})


async def _save(context: Context, images: Batch, folder_type: str, prefix: str) -> list[dict[str, str]]:
    folder = context.rig.folders.by_type(folder_type)
    assert folder is not None
    texts = {"prompt": json.dumps(context.graph)}
    texts |= {key: json.dumps(value) for key, value in context.extra_data.get("extra_pnginfo", {}).items()}
    prefix = prefix.replace("%width%", str(images[0].width)).replace("%height%", str(images[0].height))
    try:
        place, subfolder, names = context.rig.folders.reserve(folder, prefix, len(images))
    except Outside as e:
        raise NodeFailure("Exception", str(e)) from e
    for picture, name in zip(images, names, strict=True):
        if context.rig.idle_work and picture.pixels is None:
            content = drawing.flat_png(picture.width, picture.height, picture.colour, texts)
        else:
            content = await asyncio.to_thread(drawing.png_with_text, picture.painted(), texts)
        _write(place / name, content, context.rig.mischief)
    return [{"filename": name, "subfolder": subfolder, "type": folder_type} for name in names]


def _write(file: Path, content: bytes, mischief: Mischief) -> None:
    if mischief.strike("truncate") is not None:
        content = content[: len(content) // 2]
    file.write_bytes(content)
    if (huge := mischief.strike("huge")) is not None:
        os.truncate(file, max(len(content), huge["bytes"]))


@node("SaveImageWebsocket")
async def save_to_socket(context: Context, images: Batch) -> Outcome:
    for number, picture in enumerate(images):
        png = await asyncio.to_thread(drawing.encode, picture.painted(), "PNG")
        await context.tick(number, len(images), ("PNG", png))
    return Outcome(shown=None)


@node("PrimitiveString")
async def string(context: Context, value: str) -> Outcome:
    return Outcome((value,))


@node("PrimitiveInt")
async def whole_number(context: Context, value: int) -> Outcome:
    return Outcome((value,))


@node("PreviewAny")
async def preview_any(context: Context, source: Any) -> Outcome:
    return Outcome(shown={"text": [json.dumps(source) if isinstance(source, dict) else as_text(source)]})
