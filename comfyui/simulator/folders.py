"""The folders of one simulator: models, input, output, temp and user data under one base directory.

It names, lists and reserves files, and refuses paths that leave their folder; what is in the files is others' business.
Models are empty files of the right length, so a list of models is read from the disk as in the real server.
"""

import mimetypes
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from comfyui.simulator.versions import Release

MODEL_ENDINGS = (".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft")
#: Folder kind → where it is, beside models/<kind>; the order is that of GET /models.
KINDS: dict[str, tuple[str, ...]] = {
    "checkpoints": ("models/checkpoints", "output/checkpoints"),
    "configs": ("models/configs",),
    "loras": ("models/loras", "output/loras"),
    "vae": ("models/vae", "output/vae"),
    "text_encoders": ("models/text_encoders", "models/clip", "output/clip"),
    "diffusion_models": ("models/unet", "models/diffusion_models", "output/diffusion_models"),
    "clip_vision": ("models/clip_vision",),
    "style_models": ("models/style_models",),
    "embeddings": ("models/embeddings",),
    "diffusers": ("models/diffusers",),
    "vae_approx": ("models/vae_approx",),
    "controlnet": ("models/controlnet", "models/t2i_adapter"),
    "gligen": ("models/gligen",),
    "upscale_models": ("models/upscale_models",),
    "custom_nodes": ("custom_nodes",),
    "hypernetworks": ("models/hypernetworks",),
    "photomaker": ("models/photomaker",),
    "classifiers": ("models/classifiers",),
    "model_patches": ("models/model_patches",),
    "audio_encoders": ("models/audio_encoders",),
}
NOT_IN_0334 = ("model_patches", "audio_encoders")


@dataclass(frozen=True)
class ModelFile:
    """A model a simulator is given."""

    kind: str
    name: str
    size_bytes: int


DEFAULT_MODELS = (
    ModelFile("checkpoints", "juggernautXL_v8Rundiffusion.safetensors", 7_105_348_560),
    ModelFile("checkpoints", "sd_xl_base_1.0.safetensors", 6_938_078_334),
    ModelFile("loras", "add-detail-xl.safetensors", 228_455_180),
    ModelFile("vae", "sdxl_vae.safetensors", 334_641_164),
    ModelFile("upscale_models", "4x-UltraSharp.pth", 66_961_958),
)


def parse_model(text: str) -> ModelFile:
    """[KIND/]NAME[=BYTES], where KIND is checkpoints unless given. Raises ValueError."""
    path, _, size = text.partition("=")
    kind, _, rest = path.partition("/")
    kind, name = (kind, rest) if kind in KINDS and rest else ("checkpoints", path)
    if not name.endswith(MODEL_ENDINGS) or ".." in name or (size and not size.isdigit()):
        raise ValueError(f"model {text!r} is not [KIND/]NAME[=BYTES]; NAME ends in {', '.join(MODEL_ENDINGS)}")
    return ModelFile(kind, name, int(size) if size else 6_938_078_334)


class Outside(Exception):
    """A file would leave its folder; the text is the real server's."""


class Folders:
    """Owns everything under `base` but removes only temp."""

    def __init__(self, base: Path, release: Release, models: tuple[ModelFile, ...]) -> None:
        self.base = base.absolute()
        self.kinds = [kind for kind in KINDS if kind not in NOT_IN_0334 or release.number > (0, 3, 34)]
        for name in ("input", "output", "temp", "user", "custom_nodes", "web"):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        self.empty_temp()
        placeholder = self.output / "_output_images_will_be_put_here"
        if not placeholder.exists():
            placeholder.touch()
        for model in models:
            file = self.base / "models" / model.kind / model.name
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                with file.open("wb") as f:
                    f.truncate(model.size_bytes)
        #: (folder, prefix) → the number of the last file written there, so that the folder is listed only once.
        self._last: dict[tuple[Path, str], int] = {}

    @property
    def input(self) -> Path:
        return self.base / "input"

    @property
    def output(self) -> Path:
        return self.base / "output"

    @property
    def temp(self) -> Path:
        return self.base / "temp"

    @property
    def user(self) -> Path:
        return self.base / "user" / "default"

    def empty_temp(self) -> None:
        shutil.rmtree(self.temp, ignore_errors=True)
        self.temp.mkdir()
        self._last = {}

    def by_type(self, name: str) -> Path | None:
        return {"input": self.input, "output": self.output, "temp": self.temp}.get(name)

    def paths(self, kind: str) -> list[Path]:
        return [self.base / place for place in KINDS[kind]]

    def files(self, kind: str) -> list[str]:
        """The files of a folder kind as its loader lists them; kind "input" lists pictures in the input folder."""
        if kind == "input":
            names = (entry.name for entry in self.input.iterdir() if entry.is_file())
            return sorted(name for name in names if (mimetypes.guess_type(name)[0] or "").startswith("image"))
        found = set()
        for place in self.paths(kind):
            if place.is_dir():
                found |= {
                    file.relative_to(place).as_posix() for file in place.rglob("*") if file.name.endswith(MODEL_ENDINGS)
                }
        return sorted(found)

    def model(self, kind: str, name: str) -> Path | None:
        return next((place / name for place in self.paths(kind) if (place / name).is_file()), None)

    def annotated(self, name: str) -> tuple[str, Path | None]:
        """Splits "x.png [temp]" into the name and its folder; the folder is None where none is named.

        Whatever stands before the bracket is cut off with it, as the real server does: "x.png[temp]" is "x.pn".
        """
        for kind in ("output", "input", "temp"):
            if name.endswith(f"[{kind}]"):
                return name[: -len(kind) - 3], self.by_type(kind)
        return name, None

    def picture(self, name: str) -> Path:
        """Where LoadImage looks for this name, whether or not it is there."""
        plain, folder = self.annotated(name)
        return (folder if folder is not None else self.input) / plain

    def reserve(self, folder: Path, prefix: str, count: int) -> tuple[Path, str, list[str]]:
        """The next `count` file names of a save: (full folder, subfolder as shown, names).

        The prefix may hold a subfolder. Raises Outside when it leads out of `folder`.
        """
        path = PurePosixPath(os.path.normpath(prefix))
        place = Path(os.path.abspath(folder / path.parent))
        if not place.is_relative_to(folder):
            raise Outside(
                "**** ERROR: Saving image outside the output folder is not allowed.\n"
                f" full_output_folder: {place}\n         output_dir: {folder}\n         commonpath: "
                f"{os.path.commonpath((place, folder))}"
            )
        place.mkdir(parents=True, exist_ok=True)
        last = self._last.get((place, path.name))
        if last is None:
            pattern = re.compile(re.escape(path.name) + r"_(\d+)_")
            numbers = (int(match[1]) for entry in place.iterdir() if (match := pattern.match(entry.name)))
            last = max(numbers, default=0)
        self._last[place, path.name] = last + count
        subfolder = "" if path.parent == PurePosixPath(".") else path.parent.as_posix()
        return place, subfolder, [f"{path.name}_{last + n:05}_.png" for n in range(1, count + 1)]
