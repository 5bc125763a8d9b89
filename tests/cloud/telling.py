"""Pictures that tell more than they show: where they were taken, by whom, and what was cut away."""

import struct
import zlib
from io import BytesIO

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from tests.contract.pictures import encoded, plain

SECRET = b"52.5163N-13.3777E"


def opened(file: bytes) -> Image.Image:
    return Image.open(BytesIO(file))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def segment(marker: int, data: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", 2 + len(data)) + data


def with_gps() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = SECRET.decode()
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSAreaInformation] = SECRET
    return exif


def with_texts() -> PngInfo:
    texts = PngInfo()
    texts.add_text("Comment", SECRET.decode())
    texts.add_itxt("XML:com.adobe.xmp", SECRET.decode())
    return texts


JPEG, PNG, GIF = (plain(64, 48, kind) for kind in ("JPEG", "PNG", "GIF"))
TELLING = {
    "exif": encoded(opened(JPEG), "JPEG", exif=with_gps()),
    "comment": encoded(opened(JPEG), "JPEG", comment=SECRET),
    "profile": encoded(opened(JPEG), "JPEG", icc_profile=SECRET),
    "xmp": encoded(opened(JPEG), "JPEG", xmp=SECRET),
    "maker's own": JPEG[:2] + segment(0xEB, SECRET) + JPEG[2:],
    "after its end": JPEG + SECRET,
    "between its segments": JPEG[:2] + segment(0xFE, b"a") + segment(0xE2, b"MPF\0" + SECRET) + JPEG[2:],
    "png exif": encoded(opened(PNG), "PNG", exif=with_gps()),
    "png texts": encoded(opened(PNG), "PNG", pnginfo=with_texts()),
    "png's own chunk": PNG[:33] + chunk(b"prVt", SECRET) + PNG[33:],
    "after a png": PNG + SECRET,
    "gif comment": encoded(opened(GIF), "GIF", comment=SECRET),
    "after a gif": GIF + SECRET,
    "gif's next frame": encoded(
        opened(GIF), "GIF", save_all=True, append_images=[Image.new("RGB", (64, 48), "red")], comment=SECRET
    ),
}
