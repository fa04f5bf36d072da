"""The StoryDiffusion nodes that stories and comic pages are made with, as ComfyUI_StoryDiffusion at e4e0acd has them.

Shown and judged like the server's own; installed only when asked for. The sampler is silent while it runs: no progress,
no preview, no ear for an interrupt. It draws character by character, and rows it cannot use are lost or end the prompt.
"""

import asyncio
import re
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

from comfyui.simulator import drawing
from comfyui.simulator.classes import (
    NOT_IN_0334,
    SAMPLERS,
    SCHEDULERS,
    SCHEDULERS_0334,
    Choice,
    Input,
    Node,
    choice,
    integer,
    number,
    plain,
)
from comfyui.simulator.context import OUT_OF_MEMORY, Batch, Context, Latent, NodeFailure, Outcome, Picture
from comfyui.simulator.drawing import Pixels
from comfyui.simulator.nodes import node
from comfyui.simulator.scenery import imagine

MODES = [
    "story", "classic", "flux_pulid", "infiniteyou", "uno", "realcustom", "instant_character", "dreamo", "qwen_image",
    "flux_omi", "bagel_edit", "story_maker", "story_and_maker", "consistory", "kolor_face", "msdiffusion",
]  # fmt: skip
STYLES = [
    "No_style", "Realistic", "Japanese_Anime", "Digital_Oil_Painting", "Pixar_Disney_Character", "Photographic",
    "Comic_book", "Line_art", "Black_and_White_Film_Noir", "Isometric_Rooms",
]  # fmt: skip
TWO_ROLE_MODES = ("msdiffusion", "story_and_maker")
_CATEGORY = "Storydiffusion"
_MODULE = "custom_nodes.ComfyUI_StoryDiffusion"


def _text(default: str, **options: Any) -> Input:
    return Input("STRING", {"default": default, **options})


def _degree(default: float) -> Input:
    return number(default, 0.0, 1.0, 0.1, round=0.01)


def _node(name: str, inputs: dict[str, Input], outputs: tuple[str, ...], **more: Any) -> Node:
    return Node(name, name, _CATEGORY, inputs, outputs, module=_MODULE, **more)


STORY_NODES = (
    _node(
        "StoryDiffusion_Apply",
        {
            "model": plain("MODEL"),
            "vae": plain("VAE"),
            "infer_mode": choice(MODES),
            "photomake_ckpt": Input(Choice(("none",), files_of="photomaker")),
            "ipadapter_ckpt": Input(Choice(("none",), files_of="photomaker")),
            "quantize_mode": choice(["fp8", "nf4", "fp16"]),
            "lora_scale": number(0.8, 0.1, 1.0, 0.1),
            "extra_function": _text(""),
        },
        ("MODEL", "DIFFCONDI"),
        output_names=("model", "switch"),
        optional={"info": plain("STORY_CONDITIONING_1"), "CLIP_VISION": plain("CLIP_VISION")},
    ),
    _node(
        "StoryDiffusion_CLIPTextEncode",
        {
            "clip": plain("CLIP"),
            "switch": plain("DIFFCONDI"),
            "width": integer(768, 256, 2048, step=16, display="number"),
            "height": integer(768, 256, 2048, step=16, display="number"),
            "role_text": _text("[Ann] a woman img, red hair.\n[Ben] a man img, grey beard.", multiline=True),
            "scene_text": _text("[Ann] wakes up;\n[Ben] drives a car;", multiline=True),
            "pos_text": _text(",best", multiline=True),
            "neg_text": _text("bad anatomy, bad hands", multiline=True),
            "lora_trigger_words": _text("best quality"),
            "add_style": choice(STYLES),
            "mask_threshold": _degree(0.5),
            "extra_param": _text(""),
            "guidance_list": _text("0., 0.25, 0.4, 0.75;0.6, 0.25, 1., 0.75", multiline=True),
        },
        ("CONDITIONING", "CONDITIONING", "DIFFINFO", "INT", "INT"),
        output_names=("positive", "negative", "condition", "width", "height"),
        optional={"image": plain("IMAGE"), "control_image": plain("IMAGE")},
    ),
    _node(
        "StoryDiffusion_KSampler",
        {
            "model": plain("MODEL"),
            "seed": integer(0, 0, 2**31 - 1),
            "steps": integer(20, 1, 10000),
            "cfg": number(8.0, 0.0, 100.0, 0.1, round=0.01),
            "sampler_name": Input(
                Choice(tuple(SAMPLERS), tuple(name for name in SAMPLERS if name not in NOT_IN_0334)), {}
            ),
            "scheduler": Input(Choice(tuple(SCHEDULERS), tuple(SCHEDULERS_0334)), {}),
            "positive": plain("CONDITIONING"),
            "negative": plain("CONDITIONING"),
            "condition": plain("DIFFINFO"),
            "latent_image": plain("LATENT"),
            "sa32_degree": _degree(0.5),
            "sa64_degree": _degree(0.5),
            "denoise": number(1.0, 0.0, 1.0, 0.01),
        },
        ("LATENT",),
    ),
    _node(
        "Comic_Type",
        {
            "image": plain("IMAGE"),
            "scene_prompts": _text("", multiline=True, forceInput=True),
            "fonts_list": choice(["Inkfree.ttf"]),
            "text_size": integer(40, 1, 100),
            "comic_type": choice(["Four_Pannel", "Classic_Comic_Style"]),
            "split_lines": _text("；"),
        },
        ("IMAGE",),
        output_names=("image",),
    ),
)


@node("StoryDiffusion_Apply")
async def apply(context: Context, *, model: str, vae: str, infer_mode: str, **settings: Any) -> Outcome:
    return Outcome((model, infer_mode))


@node("StoryDiffusion_CLIPTextEncode")
async def encode_story(
    context: Context,
    *,
    clip: str,
    switch: str,
    width: int,
    height: int,
    role_text: str,
    scene_text: str,
    pos_text: str,
    neg_text: str,
    **settings: Any,
) -> Outcome:
    drawn = [words + pos_text for words in in_order_of_drawing(role_text, scene_text, switch)]
    await context.spend(context.rig.pace.words_s() * len(drawn))
    return Outcome((drawn, neg_text, drawn, width, height))


def in_order_of_drawing(role_text: str, scene_text: str, mode: str) -> list[str]:
    """The words of each picture that comes out of the sampler. Raises NodeFailure where the real nodes fail.

    Faithful also where it looks odd: rows after a row without a character or of two are counted differently in
    different places of the real nodes, so some are lost.
    """
    roles = _roles(role_text)
    rows = [line.strip() for line in scene_text.splitlines() if "[" in line]
    pairs = [place for place, row in enumerate(rows) if len(re.findall(r"\[.*?\]", row)) > 1]
    alone = [row for place, row in enumerate(rows) if place not in pairs]
    nobody = [place for place, row in enumerate(alone) if "[NC]" in row]
    if len(roles) not in (1, 2) or (len(roles) == 2 and not all(any(name in row for row in rows) for name in roles)):
        raise NodeFailure("IndexError", "list index out of range")
    if any(place < len(roles) for place in nobody):
        raise NodeFailure("TypeError", "exceptions must derive from BaseException")
    words = [_without_names(row.rpartition("#")[0] if "#" in row else row, roles) for row in alone]
    kept = list(words)
    for place in nobody:
        kept = kept[:place] + kept[place + 1 :]
    drawn = []
    for name in roles:
        own = [row for row, text in enumerate(rows) if name in text and (len(roles) == 1 or row not in pairs)]
        gone = [*nobody, *pairs]
        places = [row - sum(other < row for other in gone) for row in own if row not in gone]
        own_words = kept if len(roles) == 1 else [kept[place] for place in places if place < len(kept)]
        if not own_words:
            raise NodeFailure("IndexError", "list index out of range")
        drawn += own_words
    for place, last in zip(nobody, nobody[-1:], strict=False):
        drawn.insert(place, words[last])
    if pairs and mode in TWO_ROLE_MODES:
        if len(roles) == 1:
            raise NodeFailure("IndexError", "list index out of range")
        both = [rows[place] for place in pairs if all(name in rows[place] for name in roles)]
        for place, row in zip(pairs, both, strict=False):
            drawn.insert(place, _without_names(row, roles))
    return drawn


def _roles(role_text: str) -> dict[str, str]:
    """[name] → description, from the lines that have a name."""
    roles: dict[str, str] = {}
    for line in role_text.splitlines():
        start, end = line.find("["), line.find("]")
        if start != -1 and end != -1:
            if line[start : end + 1] in roles:
                raise NodeFailure("TypeError", "exceptions must derive from BaseException")
            text = line[end + 1 :]
            roles[line[start : end + 1]] = text.rpartition("#")[0] if "#" in text else text
    return roles


def _without_names(row: str, roles: dict[str, str]) -> str:
    for name, description in roles.items():
        row = row.replace(name, description + " ")
    return row.replace("[NC]", "")


@node("StoryDiffusion_KSampler")
async def sample_story(
    context: Context, *, seed: int, steps: int, condition: list[str], latent_image: Latent, **settings: Any
) -> Outcome:
    width, height = latent_image.width, latent_image.height
    missing = context.rig.memory.missing_bytes(width, height, 1)
    if missing:
        raise NodeFailure(OUT_OF_MEMORY, f"CUDA out of memory. Tried to allocate {missing / 2**30:.2f} GiB.")
    half_s = context.rig.pace.step_s(width, height, 1) * steps * len(condition) / 2
    await context.spend(half_s)
    await context.midway()
    await context.spend(half_s)
    pictures = []
    for words in condition:
        drawn_from = context.rig.chance.randint(0, seed)  # the seed is only the upper end
        if context.rig.idle_work:
            pictures.append(Picture(width, height, drawing.colour_of(drawn_from, words)))
        else:
            pixels = await asyncio.to_thread(drawing.paint, imagine(words, drawn_from), width, height)
            pictures.append(Picture(width, height, pixels=pixels))
    return Outcome((Latent(width, height, len(pictures), tuple(pictures)),))


@node("Comic_Type")
async def comic(
    context: Context, *, image: Batch, scene_prompts: str, text_size: int, split_lines: str, **settings: str
) -> Outcome:
    captions = scene_prompts.splitlines()
    if len(captions) > 1:
        captions = [re.sub(r"\[NC\]|[()\[\]]", "", line).rpartition("#")[2] for line in captions]
    else:
        captions = scene_prompts.replace(split_lines, "\n").splitlines()
    rows = _rows(image)
    if context.rig.idle_work:
        return Outcome(([Picture(image[0].width * 5 // 2, image[0].height * len(rows), image[0].colour)],))
    orders = []
    for row in rows:  # large pictures, and pairs of small ones, in any order; as in the real node, pairs have no words
        order = [1, 1, 2] if len(row) == 4 else [1, 1, 2, 2]
        context.rig.chance.shuffle(order)
        orders.append(order)
    page = await asyncio.to_thread(_page, rows, orders, captions, text_size)
    return Outcome(([Picture(*page.size, pixels=page)],))


def _rows(pictures: Batch) -> list[Batch]:
    """Rows of four, or of four and six in turn when there are more than eight; the last one is filled with blanks."""
    blank = Picture(pictures[0].width, pictures[0].height, (255, 255, 255))
    sizes = (4,) if len(pictures) <= 8 else (4, 6)
    rows: list[Batch] = []
    while left := pictures[sum(map(len, rows)) :]:
        size = sizes[len(rows) % len(sizes)] if len(left) >= min(sizes) else min(sizes)
        rows.append(left[:size] + [blank] * (size - len(left)))
    return rows


def _page(rows: list[Batch], orders: list[list[int]], captions: list[str], text_size: int) -> Pixels:
    strips, done = [], 0
    for row, order in zip(rows, orders, strict=True):
        strips.append(_row([picture.painted() for picture in row], order, captions[done : done + len(row)], text_size))
        done += len(row)
    width = min(strip.width for strip in strips)
    strips = [strip.resize((width, strip.height * width // strip.width)) for strip in strips]
    page = Image.new("RGB", (width, sum(strip.height for strip in strips)))
    y = 0
    for strip in strips:
        page.paste(strip, (0, y))
        y += strip.height
    return page


def _row(pictures: list[Pixels], order: list[int], captions: list[str], text_size: int) -> Pixels:
    framed = [ImageOps.expand(picture, 10, "white") for picture in pictures]
    width, height = framed[0].size
    row = Image.new("RGB", (sum(width if count == 1 else width // 2 for count in order), height), "white")
    x = number = 0
    for count in order:
        if count == 1:
            _caption(framed[number], captions[number] if number < len(captions) else "", text_size)
            row.paste(framed[number], (x, 0))
            x += width
        else:
            row.paste(framed[number].resize((width // 2, height // 2)), (x, 0))
            row.paste(framed[number + 1].resize((width // 2, height // 2)), (x, height // 2))
            x += width // 2
        number += count
    return row


def _caption(picture: Pixels, text: str, text_size: int) -> None:
    if text:
        draw, font = ImageDraw.Draw(picture), ImageFont.load_default(text_size)
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        x, y = (picture.width - right + left) // 2, picture.height - bottom + top - 20
        draw.rectangle((x - 5, y - 5, x + right - left + 5, y + bottom - top + 5), fill="white")
        draw.text((x - left, y - top), text, fill="black", font=font)
