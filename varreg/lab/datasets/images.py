"""One image file, decoded; refused where the pixels would not be those that were saved."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, cast

from varreg.lab.datasets.core import CorruptDatasetError, open_file, reading

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG")  # some of Pillow's others run programs
MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
ORIENTATION = 0x0112  # EXIF's number
BIT_DEPTH = 24  # where a PNG file has it
END_OF_IMAGE = b"\xff\xd9"
# What ends a JPEG scan: a marker, but neither an escaped byte nor a restart.
MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
AHEAD = 8  # bytes that libjpeg may read ahead: the width of its bit buffer
SPARE = 2  # bytes that an encoder may write too many


def open_image(path: str, mode: str) -> Image:
    """Decodes a JPEG or PNG file of 8 bits a channel.

    Args:
        path: the file.
        mode: Pillow's mode to convert it to, ``"L"`` or ``"RGB"``.

    Raises:
        CorruptDatasetError: If the file is damaged, as far as this can be known, or of a kind whose
            pixels can be read in more than one way: 16 bits, CMYK, transparent, turned, animated.
    """
    remedy = "replace it with an intact copy"
    with reading(path, "is not a complete image", remedy), open_file(path) as file:
        data = file.read()
        image = _decoded(data)
        if other := _other_kind(image, data):
            raise CorruptDatasetError(
                f"{path} {other}; what is read are JPEG and PNG images in grey or RGB with 8 bits "
                "a channel, opaque and upright: save it as one"
            )
        return image.convert(mode)


def _decoded(data: bytes) -> Image:
    import PIL.Image

    source = io.BytesIO(data)
    try:
        image = PIL.Image.open(source, formats=FORMATS)
    except PIL.UnidentifiedImageError:
        raise ValueError("it does not begin like a JPEG or PNG file") from None
    if image.format == "PNG":
        image.verify()  # the checksums, which are not looked at otherwise
        image = PIL.Image.open(io.BytesIO(data), formats=FORMATS)
    elif "progressive" in image.info:  # in many scans: how much of each is used cannot be seen
        if END_OF_IMAGE not in data[source.tell() :]:
            raise ValueError("it has no end-of-image marker")
    elif image.format == "JPEG":
        start = source.tell()
        end = MARKER.search(data, start)
        if end is None or not end.group().endswith(END_OF_IMAGE):
            raise ValueError("its data does not end with an end-of-image marker")
        scan = _Scan(data[: end.start()], start)
        image = PIL.Image.open(scan, formats=FORMATS)
        image.load()
        if scan.tell() <= scan.edge:
            raise ValueError("it holds more data than its height and width need")
    image.load()
    return image


class _Scan(io.BytesIO):
    """A JPEG file up to its end-of-image marker, which tells whether exactly all of it is used.

    JPEG has no checksum, and where data lack, libjpeg paints grey without a word. But most damage
    makes a decoder lose count of the pixels: it is done too early, or wants more than there is.
    So the last bytes are only read when they are asked for, and to read past them is an error.
    """

    def __init__(self, data: bytes, start: int) -> None:
        super().__init__(data + bytes(AHEAD))
        self.edge = max(start, len(data) - SPARE)

    def read(self, size: int | None = -1) -> bytes:
        left = self.edge - self.tell()
        data = super().read(left if size and 0 < left < size else size)
        if size and not data:
            raise ValueError("it holds less data than its height and width need")
        return data


def _other_kind(image: Image, data: bytes) -> str:
    """What makes the pixels of an image ambiguous, in words; nothing if they are not."""
    if (frames := getattr(image, "n_frames", 1)) > 1:
        return f"holds {frames} pictures"
    if image.format == "PNG" and data[BIT_DEPTH] > 8:
        return f"has {data[BIT_DEPTH]} bits a channel, and how to scale them is not known"
    if image.mode not in MODES:
        return f"is in {image.mode}, whose colours are not those of a screen"
    if image.has_transparency_data:
        bands = cast("tuple[tuple[int, int], ...]", image.convert("RGBA").getextrema())
        if bands[3][0] < 255:
            return "is transparent in places"
    if image.getexif().get(ORIENTATION) in range(2, 9):
        return "is to be turned, as its EXIF orientation says"
    return ""
