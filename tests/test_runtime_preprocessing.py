import contextlib
import io
import struct
import threading
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from hostile import tiled_tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from fertools.errors import ImageError
from fertools.runtime import decoding, to_face, to_faces

#: Neither square nor a multiple of 48, with a sharp edge where the ramp wraps around.
RAMP = ((np.arange(64)[:, None] * 7 + np.arange(100)[None] * 5) % 256).astype(np.uint8)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def test_golden_values():
    face = to_face(RAMP)
    assert face.dtype == np.uint8
    assert face.shape == (48, 48)
    assert face[0, :8].tolist() == [6, 15, 26, 36, 46, 57, 67, 78]
    assert face[20, 30:38].tolist() == [236, 85, 12, 22, 33, 43, 53, 64]
    assert face[47, 40:].tolist() == [90, 101, 111, 122, 132, 142, 153, 162]
    enlarged = to_face(np.array([[0, 255], [128, 64]], np.uint8))
    assert enlarged[24, ::8].tolist() == [67, 67, 83, 113, 143, 156]


@pytest.mark.parametrize(
    ("color", "grey"),
    [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29), ((10, 20, 30), 18), ((200, 100, 50), 124)],
)
def test_golden_luma(color, grey):
    assert np.unique(to_face(np.full((5, 7, 3), color, np.uint8))).tolist() == [grey]


def test_luma_is_that_of_pillow_exactly():
    picture = noise(48, 48, 3)
    assert np.array_equal(to_face(picture), np.asarray(Image.fromarray(picture).convert("L")))


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=120)))
def test_resize_is_that_of_pillow_within_one_grey_level(picture):
    expected = np.asarray(Image.fromarray(picture).resize((48, 48), Image.Resampling.BILINEAR))
    assert np.abs(to_face(picture).astype(int) - expected).max() <= 1


def test_large_pictures_are_read_in_bands_without_seams():
    picture = noise(1000, 70)
    expected = np.asarray(Image.fromarray(picture).resize((48, 48), Image.Resampling.BILINEAR))
    assert np.abs(to_face(picture).astype(int) - expected).max() <= 1
    assert np.unique(to_face(np.full((3000, 2000, 3), 255, np.uint8))).tolist() == [255]


def test_grey_48x48_is_unchanged_in_every_form(tmp_path):
    face = noise(48, 48)
    path = tmp_path / "face.png"
    Image.fromarray(face).save(path)
    color = np.repeat(face[:, :, None], 3, axis=2)
    for form in (
        *(face, face[:, :, None], color, np.asfortranarray(face), face[::-1][::-1]),
        *(face / 255, (face / 255).astype(np.float32), (face / 255).astype(np.float16)),
        *(path, str(path), path.read_bytes(), bytearray(path.read_bytes()), Image.open(path)),
    ):
        assert np.array_equal(to_face(form), face)


numbers = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(sizes=(16, 32, 64)),
    hnp.complex_number_dtypes(),
    st.just(np.dtype(object)),
    st.just(np.dtype("U3")),
)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_any_array_gives_a_face_or_an_image_error(data):
    dtype = data.draw(numbers)
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6))
    elements = st.floats(0, 1, width=16) if dtype.kind == "f" and data.draw(st.booleans()) else None
    if dtype.kind == "O":
        elements = st.none()
    array = data.draw(hnp.arrays(dtype, shape, elements=elements))
    with contextlib.suppress(ImageError):
        face = to_face(array)
        assert face.dtype == np.uint8
        assert face.shape == (48, 48)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200), st.sampled_from(["", "PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"]))
def test_any_bytes_give_a_face_or_an_image_error(tail, format):
    head = encoded(Image.fromarray(noise(9, 9)), format)[: 20 + len(tail)] if format else b""
    with contextlib.suppress(ImageError):
        assert to_face(head + tail).shape == (48, 48)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((48, 48), np.int64), "int64"),
        (np.zeros((48, 48), bool), "bool"),
        (np.zeros((48, 48), object), "object"),
        (np.zeros((0, 48), np.uint8), "(0, 48)"),
        (np.zeros(2304, np.uint8), "(2304,)"),
        (np.zeros((48, 48, 4), np.uint8), "(48, 48, 4)"),
        (np.zeros((1, 48, 48, 1), np.uint8), "(1, 48, 48, 1)"),
        (np.full((48, 48), np.nan), "NaN"),
        (np.full((48, 48), np.inf), "infinity"),
        (np.full((48, 48), 200.0), "divide them by 255"),
        (np.full((48, 48), -0.6), "not -0.6..-0.6: scale them first"),
        (np.full((48, 48), 1.0000001), "not 1.0000001..1.0000001: clip them"),
        (np.linspace(-0.1, 1.1, 2304).reshape(48, 48), "clip them, as with numpy.clip(image, 0, 1)"),
        ([[1, 2], [3, 4]], "list"),
        (None, "NoneType"),
    ],
)
def test_unusable_arrays_are_named(array, message):
    with pytest.raises(ImageError) as caught:
        to_face(array)
    assert message in str(caught.value)


def test_unusable_files_are_named(tmp_path):
    whole = encoded(Image.fromarray(noise(60, 60)))
    for name, content, message in (
        ("empty.png", b"", "empty"),
        ("cut.png", whole[: len(whole) // 2], "truncated"),
        ("text.png", b"hello", "not an image file"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=message) as caught:
            to_face(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(ImageError, match="no such file"):
        to_face(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="folder"):
        to_face(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        to_face("nul\0.png")
    with pytest.raises(ImageError, match="empty"):
        to_face(b"")


@pytest.mark.parametrize("shape", [(1, 500_000), (500_000, 1), (1, 65_536)])
def test_a_side_of_any_length_takes_no_memory(shape):
    picture = encoded(Image.fromarray(np.zeros(shape, np.uint8)))
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="at most 65,535: crop the face first"):
            to_face(picture)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_the_weights_of_long_sides_are_not_kept():
    tracemalloc.start()
    try:
        for side in range(20_000, 20_004):
            assert np.unique(to_face(np.full((2, side), 255, np.uint8))).tolist() == [255]
        assert tracemalloc.get_traced_memory()[0] < 5_000_000  # those of one take 7.7 million
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("side", [10_000, 60_000])  # Pillow warns about the first and refuses the second
def test_decompression_bombs_are_refused_without_warnings(side):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ImageError, match="too many pixels"):
            to_face(bomb)
    assert not caught


def test_a_large_tile_of_a_small_tiff_is_refused(monkeypatch):
    assert to_face(tiled_tiff(64)).shape == (48, 48)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
    with pytest.raises(ImageError, match="too many pixels"):
        to_face(tiled_tiff(64))


def test_postscript_is_not_run():
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 48\n%%EndComments\n{} loop\n"
    with pytest.raises(ImageError, match="an EPS file is not decoded: convert it"):
        to_face(eps)


def test_warnings_of_other_threads_are_no_errors(monkeypatch):
    """While one thread decodes, another opens a large picture, which Pillow warns of."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    large, opened = encoded(Image.fromarray(noise(60, 60))), []
    with decoding.explaining(""):
        thread = threading.Thread(target=lambda: opened.append(Image.open(io.BytesIO(large))))
        thread.start()
        thread.join()
    assert len(opened) == 1


def test_many_pixels_in_an_icon_are_refused(monkeypatch):
    """Their number is not in its header."""
    icon = bytearray(encoded(Image.fromarray(noise(60, 60)), "ICO", sizes=[(60, 60)]))
    icon[6:8] = 16, 16  # width and height of the first picture, of which it says this
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    with pytest.raises(ImageError, match="too many pixels"):
        to_face(bytes(icon))


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LA", "PA", "I", "I;16", "F"]
)
def test_white_is_white_in_every_mode(mode):
    white = Image.new("RGBA", (30, 20), "white")
    if mode in ("I", "I;16"):
        white = Image.fromarray(np.full((20, 30), 65535, np.int32 if mode == "I" else np.uint16))
    elif mode == "F":
        white = Image.fromarray(np.ones((20, 30), np.float32))
    elif mode == "PA":
        white = white.convert("P").convert("PA")
    elif mode in ("CMYK", "YCbCr", "1"):
        white = white.convert("RGB").convert(mode)
    else:
        white = white.convert(mode)
    assert white.mode == mode
    assert np.unique(to_face(white)).tolist() == [255]


def test_16_bit_grey_is_scaled_and_not_clipped():
    deep = (noise(48, 48).astype(np.uint16)) * 257
    assert np.array_equal(to_face(encoded(Image.fromarray(deep))), deep // 257)
    with pytest.raises(ImageError, match="32-bit"):
        to_face(Image.fromarray(np.full((4, 4), 70_000, np.int32)))


def test_transparency_is_laid_over_black():
    clear = np.full((48, 48, 4), 255, np.uint8)
    clear[:, :24, 3] = 0
    face = to_face(Image.fromarray(clear))
    assert np.unique(face[:, :24]).tolist() == [0]
    assert np.unique(face[:, 24:]).tolist() == [255]
    deep = noise(48, 48).astype(np.uint16) * 257
    deep[:, :24] = 40_000
    face = to_face(encoded(Image.fromarray(deep), transparency=40_000))
    assert np.unique(face[:, :24]).tolist() == [0]
    assert np.array_equal(face[:, 24:], deep[:, 24:] // 257)
    bits = Image.fromarray(noise(48, 48)).convert("1")
    assert np.unique(to_face(encoded(bits, transparency=1))).tolist() == [0]
    assert np.array_equal(to_face(encoded(bits, transparency=0)), np.asarray(bits.convert("L")))
    palette = Image.fromarray(noise(48, 48)).convert("P")
    palette.info["transparency"] = bytes(256)
    assert np.unique(to_face(palette)).tolist() == [0]


def test_exif_orientation_is_applied():
    upright = Image.fromarray(noise(48, 48))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    turned = encoded(upright.transpose(Image.Transpose.ROTATE_90), exif=exif)
    assert np.array_equal(to_face(turned), np.asarray(upright))


def test_a_batch_is_its_images():
    pictures = [noise(48, 48), noise(30, 70, 3), encoded(Image.fromarray(noise(50, 50)))]
    faces = to_faces(pictures)
    assert faces.shape == (3, 48, 48)
    assert all(np.array_equal(face, to_face(picture)) for face, picture in zip(faces, pictures, strict=True))
    assert np.array_equal(to_faces(iter(pictures)), faces)
    assert np.array_equal(to_faces(faces[..., None]), faces)
    assert to_faces([]).shape == (0, 48, 48)
    assert to_faces(np.zeros((2, 10, 20))).shape == (2, 48, 48)


@pytest.mark.parametrize("single", ["face.png", b"bytes", RAMP, noise(48, 48, 3), Image.new("L", (4, 4)), 7])
def test_a_single_image_is_no_batch(single):
    with pytest.raises(ImageError, match="list"):
        to_faces(single)


def test_the_bad_image_of_a_batch_is_named():
    with pytest.raises(ImageError, match=r"image 1: .*int64"):
        to_faces([noise(48, 48), np.zeros((48, 48), np.int64)])
    with pytest.raises(ImageError, match=r"^missing\.png: no such file"):
        to_faces([noise(48, 48), "missing.png"])
