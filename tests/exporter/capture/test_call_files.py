"""Files that a call names are read as diffusers reads them, or refused by the name of the argument."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers.utils import load_image
from PIL import Image
from safetensors.torch import save_file

from qdx.exporter.capture.call_files import load_files
from qdx.exporter.capture.media import Parameters, call_parameters
from qdx.exporter.errors import RuntimeMissing, UsageError
from tests.support.tiny.families import picture

INPAINT = call_parameters(diffusers.StableDiffusionInpaintPipeline)
VIDEO = call_parameters(diffusers.CogVideoXVideoToVideoPipeline)


def _saved(path: Path, mode: str) -> Path:
    image = picture("image-6x4.png")
    if mode == "I;16":
        image = Image.fromarray(np.arange(24, dtype=np.uint16).reshape(4, 6) * 2700)
    elif mode == "RGBA":
        image.putalpha(picture("mask-6x4.png"))
    image = image if mode in ("I;16", "RGBA") else image.convert(mode)
    image.save(path)
    return path


@pytest.mark.parametrize(
    ("mode", "ending"),
    [("RGB", "png"), ("RGBA", "png"), ("L", "png"), ("LA", "png"), ("P", "png"), ("1", "png"), ("I;16", "png"),
     ("CMYK", "jpg"), ("P", "gif")],
)  # fmt: skip
@pytest.mark.parametrize("name", ["image", "mask_image"])
def test_pictures_of_every_mode_are_read_as_diffusers_reads_them(
    tmp_path: Path, name: str, mode: str, ending: str
) -> None:
    path = _saved(tmp_path / f"x.{ending}", mode)

    found = load_files({name: str(path)}, INPAINT)[name]

    assert np.array_equal(np.asarray(found), np.asarray(load_image(str(path))))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_its_file_says(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture("image-6x4.png").save(tmp_path / "x.png", exif=exif)

    found = load_files({"image": "x.png"}, INPAINT, base=tmp_path)["image"]

    assert np.array_equal(np.asarray(found), np.asarray(load_image(str(tmp_path / "x.png"))))
    assert found.size == ((4, 6) if orientation > 4 else (6, 4))


def test_of_an_animated_picture_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [picture(f"image-6x4-{n}.png") for n in range(3)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])

    found = load_files({"image": str(tmp_path / "x.gif")}, INPAINT)["image"]

    assert np.array_equal(np.asarray(found), np.asarray(load_image(str(tmp_path / "x.gif"))))


def test_a_video_is_an_animated_gif_a_folder_of_pictures_or_a_list_of_them(tmp_path: Path) -> None:
    frames = [picture(f"image-6x4-{n}.png") for n in range(11)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(frames):
        frame.save(tmp_path / "frames" / f"f{number}.png")

    gif = load_files({"video": "x.gif"}, VIDEO, base=tmp_path)["video"]
    folder = load_files({"video": "frames"}, VIDEO, base=tmp_path)["video"]
    listed = load_files({"video": ["frames/f0.png", "frames/f1.png"]}, VIDEO, base=tmp_path)[
        "video"
    ]

    assert [frame.mode for frame in gif] == ["RGB"] * 11
    for found, frame in zip(folder, frames, strict=True):  # f10 comes last
        assert np.array_equal(np.asarray(found), np.asarray(frame))
    assert np.array_equal(np.asarray(listed[1]), np.asarray(frames[1]))


def test_a_film_wants_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.mp4").write_bytes(b"x")
    monkeypatch.setitem(__import__("sys").modules, "imageio", None)

    with pytest.raises(RuntimeMissing, match="needs the package imageio"):
        load_files({"video": "x.mp4"}, VIDEO, base=tmp_path)


def test_lists_of_pictures_may_be_nested(tmp_path: Path) -> None:
    picture("image-6x4.png").save(tmp_path / "x.png")
    parameters = call_parameters(diffusers.StableDiffusionPipeline)

    found = load_files({"ip_adapter_image": [["x.png", None]]}, parameters, base=tmp_path)

    assert found["ip_adapter_image"][0][0].size == (6, 4)
    assert found["ip_adapter_image"][0][1] is None


@pytest.mark.parametrize(
    "value",
    [{"file": "e.safetensors", "tensor": "prompt"}, {"file": "one.safetensors"}, "one.safetensors"],
    ids=repr,
)
def test_a_tensor_comes_from_a_file_of_tensors(tmp_path: Path, value: object) -> None:
    embeds = torch.randn(1, 3, 4)
    save_file({"prompt": embeds, "other": torch.zeros(1)}, tmp_path / "e.safetensors")
    save_file({"prompt": embeds}, tmp_path / "one.safetensors")

    found = load_files({"prompt_embeds": value}, INPAINT, base=tmp_path)["prompt_embeds"]

    assert torch.equal(found, embeds)


def test_a_prompt_is_never_a_path(tmp_path: Path) -> None:
    call = {"prompt": "one.safetensors", "negative_prompt": ["x.png"]}

    assert load_files(call, INPAINT, base=tmp_path) == call


@pytest.mark.parametrize(
    ("parameters", "call", "words"),
    [
        (INPAINT, {"prompt_embeds": {"file": "e.safetensors"}}, "holds 2 tensors"),
        (INPAINT, {"prompt_embeds": {"file": "e.safetensors", "tensor": "x"}}, "has no tensor `x`"),
        (INPAINT, {"prompt_embeds": {"file": "missing.safetensors"}}, "missing.safetensors"),
        (INPAINT, {"prompt_embeds": {"file": 5}}, "expected a file and the name"),
        (INPAINT, {"image": "https://a.example/x.png"}, "qdx fetches nothing"),
        (INPAINT, {"image": "missing.png"}, "missing.png"),
        (VIDEO, {"video": "empty"}, "holds 0 files"),
        (call_parameters(diffusers.StableAudioPipeline), {"initial_audio_waveforms": "x.wav"}, "qdx reads none"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_its_name(
    tmp_path: Path, parameters: Parameters, call: dict[str, object], words: str
) -> None:
    save_file({"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "e.safetensors")
    (tmp_path / "empty").mkdir()

    with pytest.raises(UsageError, match=words) as raised:
        load_files(call, parameters, base=tmp_path)

    assert f"`{next(iter(call))}`" in raised.value.message


def bomb() -> bytes:
    """A PNG whose header promises 40000 x 40000 pixels."""
    head = struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    return (b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(head)) + chunk
            + struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 0) + b"IDAT")  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"GIF89a", bomb()], ids=["empty", "damaged", "bomb"])
def test_a_file_that_is_no_image_is_wrong_usage(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.png").write_bytes(data)

    with pytest.raises(UsageError, match="cannot be read as an image"):
        load_files({"image": "x.png"}, INPAINT, base=tmp_path)


def test_the_size_of_an_image_file_is_bounded(tmp_path: Path) -> None:
    with (tmp_path / "x.png").open("wb") as file:
        file.truncate(65 * 2**20)

    with pytest.raises(UsageError, match="bytes, expected at most"):
        load_files({"image": "x.png"}, INPAINT, base=tmp_path)
