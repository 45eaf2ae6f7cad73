"""Pictures and videos from anywhere: the right pixels at the right times, and clear refusals."""

import contextlib
import io
import struct
import time
import warnings
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from llmasr.config import XLLM_FRAMES, FrameConfig
from llmasr.media import DamagedVideoWarning, MediaError, images, load_image, load_video, videos
from llmasr.media.frames import choose
from llmasr.media.images import DEVIATION, MEAN

Image = pytest.importorskip("PIL.Image", reason="the media extra is not installed")
av = pytest.importorskip("av", reason="the media extra is not installed")

NOISE = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
# A picture without fine detail, so that lossy formats keep it.
ROWS, COLUMNS = np.mgrid[0:96, 0:160]
SMOOTH = np.stack([ROWS * 2, COLUMNS * 1.5, (ROWS + COLUMNS) / 2], -1).astype(np.uint8)
WHITE = [(1 - mean) / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)]
BLACK = [-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)]
SHADE = 1 / 255 / min(DEVIATION)  # one level of 8 bits


@pytest.fixture(autouse=True)
def _no_warning_leaks():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def encoded(image, name: str = "PNG", **options) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def grey(pixels: Tensor) -> float:
    """Return the mean level of normalised pixels, 0 to 255."""
    scaled = pixels * torch.tensor(DEVIATION)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    return float(scaled.mean() * 255)


# pictures


@pytest.mark.parametrize("shape", [(90, 130), (400, 300), (224, 224), (1, 700)], ids=str)
def test_pixels_are_those_of_the_processor_of_blip(shape):
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
    processor = BlipImageProcessorPil(size={"height": 224, "width": 224})
    expected = processor(image, return_tensors="np")["pixel_values"][0]
    assert_close(load_image(image), torch.from_numpy(expected), atol=1e-5, rtol=1e-5)


def test_pixels_of_photographs_are_those_of_the_processor_of_blip(data):
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    processor = BlipImageProcessorPil(size={"height": 224, "width": 224})
    for name in ("chelsea.png", "coffee.png", "rocket.jpg"):
        path = data / "multimodal" / "images" / name
        expected = processor(Image.open(path), return_tensors="np")["pixel_values"][0]
        assert_close(load_image(path), torch.from_numpy(expected), atol=1e-5, rtol=1e-5)


def test_a_drawing_without_background_stands_on_white(data):
    pixels = load_image(data / "multimodal" / "images" / "horse.png")
    assert pixels[:, 0, 0].tolist() == pytest.approx(WHITE)


def test_every_way_to_hand_over_a_picture_gives_the_same(tmp_path):
    content = encoded(NOISE)
    path = tmp_path / "noise.png"
    path.write_bytes(content)
    floats = NOISE / 255
    sources = [
        path, str(path), content, bytearray(content), memoryview(content), io.BytesIO(content),
        Image.fromarray(NOISE), Image.open(path), NOISE, floats, floats.astype(np.float32),
        np.concatenate([NOISE, np.full((90, 130, 1), 255, np.uint8)], 2), NOISE.copy()[::1, ::1],
    ]  # fmt: skip
    expected = load_image(path, size=32)
    assert expected.shape == (3, 32, 32)
    assert expected.dtype == torch.float32
    for source in sources:
        assert torch.equal(load_image(source, size=32), expected)


def test_a_file_object_is_read_from_its_start():
    file = io.BytesIO(encoded(NOISE))
    file.read(10)
    assert torch.equal(load_image(file), load_image(NOISE))


def test_the_name_of_a_file_does_not_matter(tmp_path):
    path = tmp_path / "picture.wav"
    path.write_bytes(encoded(NOISE, "BMP"))
    assert torch.equal(load_image(path), load_image(NOISE))


@pytest.mark.parametrize("name", ["PNG", "BMP", "TIFF", "WEBP", "JPEG", "GIF", "PPM", "JPEG2000"])
def test_formats_are_read(name):
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(name, {})
    pixels = load_image(encoded(SMOOTH, name, **options), size=32)
    assert (pixels - load_image(SMOOTH, size=32)).abs().mean() < 3 * SHADE


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LA", "RGBA", "I;16", "HSV"])
def test_modes_of_pillow_become_rgb(mode):
    plain = Image.fromarray(np.full((20, 30), 255, np.uint8))
    if mode == "I;16":
        image = Image.fromarray(np.full((20, 30), 65_535, np.uint16))
    else:
        image = plain.convert("RGB").convert(mode) if mode == "HSV" else plain.convert(mode)
    assert image.mode == mode
    assert load_image(image, size=8)[:, 4, 4].tolist() == pytest.approx(WHITE, abs=SHADE)


def test_sixteen_bits_keep_their_upper_eight():
    levels = np.linspace(0, 65_535, 64 * 64).reshape(64, 64).astype(np.uint16)
    expected = load_image((levels / 65_535), size=64)
    assert_close(load_image(encoded(levels), size=64), expected, atol=SHADE, rtol=0)


def test_transparent_pixels_become_white_and_half_transparent_ones_paler():
    image = np.zeros((40, 60, 4), np.uint8)  # black
    image[:, 20:40, 3], image[:, 40:, 3] = 128, 255
    pixels = load_image(encoded(image), size=60)
    assert pixels[:, 30, 5].tolist() == pytest.approx(WHITE)
    assert grey(pixels[:, :, 25:35]) == pytest.approx(127, abs=1)
    assert pixels[:, 30, 55].tolist() == pytest.approx(BLACK)


def test_a_transparent_colour_of_a_palette_becomes_white():
    palette = Image.fromarray(NOISE).quantize(8)
    corner = palette.getpixel((0, 0))
    pixels = load_image(encoded(palette, transparency=corner), size=130)
    assert pixels[:, 0, 0].tolist() == pytest.approx(WHITE, abs=0.3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF"])
def test_pictures_lie_as_their_exif_says(name, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(SMOOTH, name, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    # Pillow resizes rows before columns, and rounds in between.
    expected = load_image(np.array(upright), size=32)
    assert_close(load_image(content, size=32), expected, atol=1.01 * SHADE, rtol=0)


def test_a_photograph_with_a_second_picture_behind_it_is_no_animation():
    content = encoded(Image.fromarray(SMOOTH), "MPO", append_images=[Image.fromarray(NOISE)])
    if Image.open(io.BytesIO(content)).n_frames == 1:
        content = encoded(
            Image.fromarray(SMOOTH), "MPO", save_all=True, append_images=[Image.fromarray(NOISE)]
        )
    assert Image.open(io.BytesIO(content)).n_frames == 2
    pixels = load_image(content, size=32)
    assert (pixels - load_image(SMOOTH, size=32)).abs().mean() < 3 * SHADE


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animations_and_pages_are_refused(tmp_path, name):
    path = tmp_path / "moving"
    more = [Image.fromarray(255 - NOISE)]
    path.write_bytes(encoded(NOISE, name, save_all=True, append_images=more))
    with pytest.raises(MediaError, match=r"moving' is animated or has pages; pass it as a video"):
        load_image(path)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
@pytest.mark.parametrize("name", ["PNG", "BMP", "TIFF", "WEBP", "JPEG", "GIF", "PPM"])
def test_truncated_pictures_are_refused(tmp_path, name, share):
    content = encoded(NOISE, name)
    path = tmp_path / "cut"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(MediaError, match=r"cut' is (truncated or damaged|no picture).*accepted is"):
        load_image(path)


@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP", "JPEG", "GIF"])
def test_damaged_pictures_are_read_or_refused_but_raise_nothing_else(name):
    rng = np.random.default_rng(2)
    exif = Image.Exif()
    exif[0x0112] = 6
    content = np.frombuffer(encoded(NOISE[:20, :20], name, exif=exif), np.uint8)
    for _ in range(150):
        damaged = content.copy()
        places = rng.integers(0, min(len(content), 400), 3)
        damaged[places] = rng.integers(0, 256, 3)
        with contextlib.suppress(MediaError):
            load_image(damaged.tobytes(), size=8)


@pytest.mark.parametrize(
    "content", [b"no picture", b"RIFF\x24\0\0\0WAVEfmt ", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_picture_is_refused(content):
    with pytest.raises(MediaError, match=r"image of .* bytes is no picture that can be read"):
        load_image(content)


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims to be so large."""
    fields = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(100))
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
              for c in (fields, data)]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("side", [8_200, 11_000, 30_000, 200_000])
def test_gigapixel_pictures_are_refused_before_they_are_decoded(side):
    started = time.monotonic()
    with pytest.raises(MediaError, match=r"image of .* bytes .*allowed: 1 to 67108864 pixels"):
        load_image(png_header(side, side))
    assert time.monotonic() - started < 1


def test_a_large_jpeg_is_decoded_at_a_fraction(monkeypatch):
    large = np.asarray(Image.fromarray(SMOOTH).resize((1600, 960)))
    expected = load_image(large, size=32)
    monkeypatch.setattr(images, "MAX_PIXELS", 200 * 120)
    assert (load_image(encoded(large, "JPEG"), size=32) - expected).abs().mean() < 4 * SHADE


def test_a_large_progressive_jpeg_is_refused(monkeypatch):
    content = encoded(SMOOTH, "JPEG", progressive=True)
    load_image(content)
    monkeypatch.setattr(images, "MAX_PIXELS", 10_000)
    with pytest.raises(MediaError, match=r"160 x 96 pixels; allowed: .* any JPEG that is not prog"):
        load_image(content)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a.png",
        "http://example.org",
        "file:///a.png",
        "data:image/png;base64,iV",
    ],
)
def test_urls_are_refused(url):
    for load in (load_image, load_video):
        with pytest.raises(MediaError, match=r"is a URL and nothing is downloaded; accepted is"):
            load(url)


def test_paths_that_lead_nowhere_are_named(tmp_path):
    (tmp_path / "empty").touch()
    for load in (load_image, load_video):
        with pytest.raises(MediaError, match=r"cannot open '.*absent': No such file"):
            load(tmp_path / "absent")
        with pytest.raises(MediaError, match="is a directory; pass the files in it"):
            load(tmp_path)
        with pytest.raises(MediaError, match="empty' is empty: it has 0 bytes"):
            load(tmp_path / "empty")
        with pytest.raises(MediaError, match="is a device, pipe or socket"):
            load("/dev/null")
        with pytest.raises(TypeError, match="is a int; accepted is"):
            load(3)
        with pytest.raises(TypeError, match=r"gives str; allowed: bytes \(open it as 'rb'\)"):
            load(io.StringIO("text"))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 20, 20), np.uint8), r"array of shape \[3, 20, 20\] is no picture"),
        (np.zeros(20, np.uint8), r"array of shape \[20\] is no picture"),
        (np.zeros((0, 20, 3), np.uint8), r"20 x 0 pixels; allowed"),
        (np.full((20, 20, 3), 200.0), "values from 200 to 200; allowed: 0 to 1"),
        (np.full((20, 20, 3), -0.5), "values from -0.5 to -0.5; allowed: 0 to 1"),
        (np.full((20, 20, 3), np.nan), "values from nan to nan; allowed: 0 to 1"),
    ],
    ids=["channels-first", "1-D", "empty", "0-255", "negative", "nan"],
)
def test_arrays_that_are_no_picture_are_refused(array, message):
    with pytest.raises(MediaError, match=message):
        load_image(array)


def test_integers_of_unknown_scale_are_refused():
    with pytest.raises(TypeError, match="pixels are int64; allowed: uint8, or floats in"):
        load_image(np.zeros((20, 20, 3), np.int64))


def test_a_grey_array_is_a_picture():
    plane = NOISE[..., 0]
    assert torch.equal(load_image(plane), load_image(np.stack([plane] * 3, -1)))
    assert torch.equal(load_image(plane), load_image(plane[..., None]))


def test_handing_over_an_image_of_pillow_leaves_it_as_it_was():
    image = Image.fromarray(NOISE).convert("P")
    before = image.tobytes()
    load_image(image)
    assert (image.mode, image.size, image.tobytes()) == ("P", (130, 90), before)


# videos


def video(
    container: str = "mp4",
    codec: str = "mpeg4",
    times: list[float] | None = None,
    *,
    rate: int = 1000,
    size: tuple[int, int] = (64, 48),
    draw=None,
    path: Path | None = None,
    **options: str,
) -> bytes:
    """Return a video whose frame n has the grey level 10 + 3 n, by default 60 at 10 a second.

    Times are in seconds, which are cut into `rate` ticks.
    """
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    times = [n / 10 for n in range(60)] if times is None else times
    file = io.BytesIO()
    with av.open(str(path) if path else file, "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.bit_rate = 2_000_000
        output.start_encoding()
        for n, moment in enumerate(times):
            canvas = np.full((size[1], size[0], 3), 10 + 3 * n % 240, np.uint8)
            frame = av.VideoFrame.from_ndarray(draw(canvas) if draw else canvas, format="rgb24")
            frame.pts, frame.time_base = round(moment * rate), Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path.read_bytes() if path else file.getvalue()


def numbers(clip) -> list[int]:
    """Return which frames of `video` these are, by their grey levels."""
    return [round((grey(pixels) - 10) / 3) for pixels in clip.frames[clip.mask]]


def test_frames_are_spread_evenly_over_the_time():
    clip = load_video(video(), size=16)
    assert clip.frames.shape == (5, 3, 16, 16)
    assert clip.frames.dtype == torch.float32
    assert clip.mask.tolist() == [True] * 5
    assert numbers(clip) == [6, 18, 30, 42, 54]
    assert clip.times.tolist() == pytest.approx([0.6, 1.8, 3.0, 4.2, 5.4])


@pytest.mark.parametrize(("sampling", "expected"), [("head", [0, 1, 2]), ("tail", [57, 58, 59])])
def test_frames_are_taken_from_an_end(sampling, expected):
    clip = load_video(video(), size=16, config=FrameConfig(3, sampling))
    assert numbers(clip) == expected


def test_x_llm_takes_the_first_five_frames_at_one_a_second():
    clip = load_video(video(), size=16, config=XLLM_FRAMES)
    assert numbers(clip) == [0, 10, 20, 30, 40]
    assert clip.times.tolist() == pytest.approx([0, 1, 2, 3, 4])


def test_x_llm_crops_the_middle_of_what_the_shorter_side_fills():
    def edged(canvas):
        canvas[:, :8] = canvas[:, -8:] = 255
        return canvas

    content = video(times=[0, 0.1], draw=edged)  # 64 x 48, of which the crop has 8 to 56
    cropped = load_video(content, size=16, config=XLLM_FRAMES).frames[0]
    squeezed = load_video(content, size=16).frames[0]
    assert grey(cropped[:, :, :2]) < 40
    assert grey(squeezed[:, :, :2]) > 200


def test_a_video_with_fewer_frames_than_asked_for_says_so_in_its_mask():
    clip = load_video(video(times=[0, 0.5]), size=16)
    assert clip.mask.tolist() == [True, True, False, False, False]
    assert numbers(clip) == [0, 1]
    assert not clip.frames[2:].any()
    assert not clip.times[2:].any()


def test_a_varying_frame_rate_is_no_matter():
    # a burst of frames, then one that stands for six seconds
    moments = [n / 100 for n in range(40)] + [2.0, 8.0]
    clip = load_video(video(times=moments), size=16, config=FrameConfig(4))
    assert numbers(clip) == [39, 40]
    assert clip.times[clip.mask].tolist() == pytest.approx([0.39, 2.0])
    paced = load_video(
        video(times=moments), size=16, config=FrameConfig(9, "head", frames_per_second=1.0)
    )
    assert numbers(paced) == [0, 39, 40, 41]


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mp4", "mpeg4"), ("mp4", "libx264"), ("mov", "mjpeg"), ("matroska", "libx264"),
        ("webm", "libvpx-vp9"), ("avi", "mpeg4"), ("mpegts", "mpeg2video"), ("mpeg", "mpeg2video"),
        ("h264", "libx264"), ("flv", "flv"),
    ],
)  # fmt: skip
def test_any_container_gives_the_same_frames(tmp_path, container, codec):
    path = tmp_path / "clip"
    path.write_bytes(video(container, codec, [n / 25 for n in range(60)], rate=25))
    # FFmpeg's muxer for mpg leaves a tick out now and then
    assert numbers(load_video(path, size=16)) == pytest.approx([6, 18, 30, 42, 54], abs=1)


def test_an_animation_is_a_video():
    pictures = [Image.fromarray(np.full((20, 30), 10 + 3 * n, np.uint8)) for n in range(10)]
    content = encoded(pictures[0], "GIF", save_all=True, append_images=pictures[1:], duration=100)
    assert numbers(load_video(content, size=16)) == [1, 3, 5, 7, 9]


def test_leaping_finds_the_same_frames_as_going_through_it_all(data):
    for path in sorted((data / "multimodal" / "grid").iterdir()):
        every = load_video(path, size=32, config=FrameConfig(200))
        assert int(every.mask.sum()) == 75
        some = load_video(path, size=32, config=FrameConfig(7))
        places = (some.times * 25).round().long()
        assert torch.equal(some.frames, every.frames[places])


def test_a_real_video_is_seen_as_x_llm_would(data):
    clip = load_video(data / "multimodal" / "grid" / "swwp2s.mpg", config=XLLM_FRAMES)
    assert clip.mask.tolist() == [True, True, True, False, False]
    assert clip.times.tolist() == [0, 1, 2, 0, 0]


def rotated(mp4: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """Return an MP4 whose track header turns its pictures by (a, b, c, d)."""
    start = mp4.index(b"tkhd") + 44
    a, b, c, d = matrix
    one = 1 << 16
    values = (a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    return mp4[:start] + struct.pack(">9i", *values) + mp4[start + 36 :]


@pytest.mark.parametrize(
    ("matrix", "turns"),
    # x' = a x + c y and y' = b x + d y, with y downwards: the second is a quarter clockwise
    [((1, 0, 0, 1), 0), ((0, 1, -1, 0), 3), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)],
)
def test_frames_lie_as_their_rotation_says(matrix, turns):
    def marked(canvas):
        canvas[:24, :32] = 250  # the upper left quarter
        return canvas

    content = rotated(video(times=[0, 0.1], draw=marked), matrix)
    seen = load_video(content, size=16).frames[0]
    upright = load_video(video(times=[0, 0.1], draw=marked), size=16).frames[0]
    assert grey(upright[:, :8, :8]) > 200
    assert_close(seen, upright.rot90(turns, (1, 2)), atol=0.3, rtol=0)


def test_a_long_video_is_not_gone_through(monkeypatch):
    decoded = []
    original = videos._frames

    def counted(container, stream):
        for pts, frame in original(container, stream):
            decoded.append(pts)
            yield pts, frame

    monkeypatch.setattr(videos, "_frames", counted)
    clip = load_video(video(times=[n / 10 for n in range(600)]), size=16, config=FrameConfig(2))
    assert clip.times.tolist() == pytest.approx([15.0, 45.0])
    assert numbers(clip) == [150 % 80, 450 % 80]
    assert len(decoded) < 40


@pytest.mark.parametrize(
    "content", [b"no video", b"\0\0\0\x18ftypmp42" + bytes(40), b"RIFF1234AVI "]
)
def test_what_is_no_video_is_refused(content):
    with pytest.raises(MediaError, match=r"video of .* bytes (is no video|has no).*accepted is"):
        load_video(content)


def with_cover(flac: bytes) -> bytes:
    """Return a FLAC with a picture: FFmpeg calls it a video track."""
    png = encoded(NOISE[:20, :20])
    mime = b"image/png"
    block = (
        struct.pack(">II", 3, len(mime)) + mime + struct.pack(">IIIIII", 0, 20, 20, 24, 0, len(png))
    )
    block += png
    return flac[:42] + bytes([6]) + len(block).to_bytes(3, "big") + block + flac[42:]


@pytest.mark.parametrize("cover", [False, True])
def test_sound_without_video_is_refused(tmp_path, cover):
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / "song.flac"
    soundfile.write(path, np.zeros(16_000), 16_000)
    if cover:
        path.write_bytes(with_cover(path.read_bytes()))
        with av.open(str(path)) as container:
            assert container.streams.video
    with pytest.raises(MediaError, match=r"song\.flac' has no video track, only \['audio'"):
        load_video(path)


def test_a_video_without_frames_is_refused():
    content = video("matroska", times=[])
    with pytest.raises(MediaError, match=r"video of .* bytes (is no video|has no)"):
        load_video(content)


def test_a_video_cut_before_its_index_is_refused():
    content = video()
    with pytest.raises(MediaError, match="is no video that can be read"):
        load_video(content[: len(content) // 2])


@pytest.mark.parametrize("container", ["matroska", "mp4"])
def test_a_video_that_is_cut_short_is_used_as_far_as_it_goes(tmp_path, container):
    options = {"movflags": "faststart"} if container == "mp4" else {}
    content = video(container, path=tmp_path / "whole", **options)
    with pytest.warns(DamagedVideoWarning, match=r"cut short or damaged: \d\.\d\d s are missing"):
        clip = load_video(content[: len(content) // 2], size=16)
    found = numbers(clip)
    assert found
    assert found == sorted(set(found))
    assert found[-1] < 45


@pytest.mark.parametrize(("container", "codec"), [("mp4", "mpeg4"), ("matroska", "mpeg4")])
def test_damaged_videos_are_read_or_refused_but_raise_nothing_else(container, codec):
    rng = np.random.default_rng(3)
    content = np.frombuffer(video(container, codec, times=[n / 10 for n in range(12)]), np.uint8)
    for _ in range(40):
        damaged = content.copy()
        damaged[rng.integers(0, len(content), 20)] = rng.integers(0, 256, 20)
        with warnings.catch_warnings(), contextlib.suppress(MediaError):
            warnings.simplefilter("ignore", DamagedVideoWarning)
            load_video(damaged.tobytes(), size=8)


def test_frames_that_are_too_large_are_refused(monkeypatch):
    monkeypatch.setattr(videos, "MAX_PIXELS", 1000)
    with pytest.raises(MediaError, match="frames of 64 x 48 pixels; allowed: up to 1000 pixels"):
        load_video(video())


def test_a_playlist_opens_no_other_file(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(video())
    (tmp_path / "list").write_text(f"ffconcat version 1.0\nfile {tmp_path}/clip.mp4\n")
    with pytest.raises(MediaError, match="list' is no video that can be read"):
        load_video(tmp_path / "list")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (FrameConfig(sampling="random"), "sampling is 'random'; allowed: uniform, head, tail"),
        (FrameConfig(num_frames=0), "num_frames is 0; allowed: 1 or more"),
        (FrameConfig(frames_per_second=-1.0), "frames_per_second is -1.0; allowed: 0, which"),
        (FrameConfig(window_seconds=float("nan")), "window_seconds is nan; allowed: 0, which"),
    ],
    ids=["sampling", "frames", "rate", "window"],
)
def test_frames_that_cannot_be_chosen_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        load_video("never read", config=config)


CHOICES = [
    ("uniform", 0.0, 0.0, [1, 5, 8]),
    ("head", 0.0, 0.0, [0, 1, 2]),
    ("tail", 0.0, 0.0, [7, 8, 9]),
    ("head", 2.0, 0.0, [0, 1, 2]),
    ("head", 0.5, 0.0, [0, 4, 8]),
    ("tail", 1.0, 3.0, [0, 2, 4]),
    ("uniform", 0.0, 2.0, [0, 2, 3]),
    ("uniform", 1.0, 0.0, [0, 4, 8]),
]


@pytest.mark.parametrize(("sampling", "rate", "window", "expected"), CHOICES)
def test_frames_are_chosen_by_time(sampling, rate, window, expected):
    times = np.arange(10) / 2
    assert choose(times, 5.0, FrameConfig(3, sampling, rate, window)).tolist() == expected


def test_a_single_frame_can_be_chosen_whatever_it_lasts():
    for end in (0.0, 1e-6, 3.0):
        for config in (FrameConfig(), XLLM_FRAMES, FrameConfig(sampling="tail", num_frames=1)):
            assert choose(np.zeros(1), end, config).tolist() == [0]
