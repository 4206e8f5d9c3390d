"""Reads Tux Paint's stamps from Debian's package: which things there are, and their pictures and speech.

A thing is a picture (png or svg) beside a caption file `NAME.txt`, whose first line is English and whose other
lines read `xx.utf8=translation`. Spoken descriptions are `NAME_desc_LANG.ogg`. Whatever is not taken is reported
through `Source.skipped`, one sentence each.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import subprocess
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import numpy as np
import resvg_py  # pyright: ignore[reportMissingImports]  (only for the build)
import soundfile
from PIL import Image
from scipy.signal import resample_poly

PACKAGE = "tuxpaint-stamps-default"
VERSION = "2022.06.04-1"
DEB_SHA256 = "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34"
SAMPLE_RATE = 16_000
SIDE = 128
FAINT = 240
LANGUAGES = (
    *("fr", "es", "de", "ca", "ru", "ro", "bg", "be", "el", "da", "it", "nl", "pt", "pl", "sv", "uk", "ja", "ko"),
    "zh_CN",
)

# Photos and drawings lie mixed in some folders; these names of drawn PNGs were taken from a contact sheet by eye.
DRAWN_PNG = re.compile(
    r"symbols/(?!money/(canadian|euro|japanese|us)/)|seasonal/(easter|hanukkah|newyears)/|town/flags/"
    r"|seasonal/christmas/(Santa|bow|hard_candy|lamp|santahat|star|stocking|tree|xmas_tp_bulb)$"
    r"|seasonal/halloween/(bat_left|blackcat|ghost|skull|spider)$"
    r"|town/roadsigns/(arrow|crossroads|give_way_sign|hospital|no_entry_sign|roundabout|stop|stoplight_.*"
    r"|t-junction|toilets|yield)$"
    r"|town/monuments/inukshuk-outline$|clothes/(t_.*|button)$|food/pizza$|medical/tooth$|people/body_parts/eye$"
    r"|animals/mammals/(echidna|hedgehog)$|naturalforces/lightningbolt$"
)


@dataclass(frozen=True)
class Thing:
    """One stamp: its slug (path below the stamps folder, without extension) and where its files are."""

    key: str
    picture: Path
    kind: str
    captions: dict[str, str]
    speech: dict[str, Path]

    @property
    def category(self) -> str:
        """Top folder."""
        return self.key.split("/")[0]


@dataclass
class Source:
    """The unpacked package: things in the order of their keys, and a sentence for whatever was not taken."""

    root: Path
    things: list[Thing]
    skipped: list[str] = field(default_factory=list)

    @property
    def changes(self) -> str:
        """The upstream change log, which names contributors and licenses of single stamps."""
        return gzip.decompress((self.root / f"usr/share/doc/{PACKAGE}/changelog.gz").read_bytes()).decode()


def unpack(path: Path, folder: Path) -> Path:
    """Check and unpack the .deb into `folder`; a folder that holds the unpacked package is taken as it is.

    Raises:
        FileNotFoundError: `path` is neither.
        ValueError: the .deb is another version or damaged.
    """
    if path.is_dir():
        if not (path / "usr/share/tuxpaint/stamps").is_dir():
            raise FileNotFoundError(f"{path} holds no usr/share/tuxpaint/stamps; give the .deb or `dpkg-deb -x` of it")
        return path
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; `apt-get download {PACKAGE}={VERSION}` fetches it")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != DEB_SHA256:
        raise ValueError(f"{path} has sha256 {digest}, expected {DEB_SHA256} ({PACKAGE} {VERSION})")
    subprocess.run(["dpkg-deb", "-x", str(path), str(folder)], check=True)
    return folder


def read(root: Path, speech_languages: tuple[str, ...]) -> Source:
    """List the things of an unpacked package."""
    stamps = root / "usr/share/tuxpaint/stamps"
    pictures: dict[str, Path] = {}
    for suffix in ("svg", "png"):  # the author's own raster wins where both exist: it needs no renderer
        pictures |= {str(p.relative_to(stamps).with_suffix("")): p for p in stamps.rglob(f"*.{suffix}")}
    texts = {str(p.relative_to(stamps).with_suffix("")): p for p in stamps.rglob("*.txt")}
    source = Source(root=root, things=[])
    for key in sorted(texts.keys() | pictures.keys()):
        if key not in pictures:
            source.skipped.append(f"{key}: a caption without a picture")
        elif key not in texts:
            source.skipped.append(f"{key}: a picture without a caption (mirrored view of another stamp)")
        else:
            source.things.append(_thing(stamps, key, pictures[key], texts[key], speech_languages, source.skipped))
    used = {p for thing in source.things for p in thing.speech.values()}
    for language in speech_languages:
        spare = sorted(set(stamps.rglob(f"*_desc_{language}.ogg")) - used)
        source.skipped += [f"{p.relative_to(stamps)}: speech without a bundled thing" for p in spare]
    return source


def _thing(stamps: Path, key: str, picture: Path, text: Path, languages: tuple[str, ...], skipped: list[str]) -> Thing:
    first, *rest = text.read_text(encoding="utf-8").splitlines()
    translations = dict(line.split(".utf8=", 1) for line in rest if ".utf8=" in line)
    captions = {code: translations.get(code, "").strip() for code in LANGUAGES} | {"en": first.strip()}
    speech = {code: stamps / f"{key}_desc_{code}.ogg" for code in languages}
    skipped += [f"{key}: no speech in {code!r}" for code, p in speech.items() if not p.exists()]
    vector = picture.with_suffix(".svg").exists()
    drawn = vector or "cartoon" in key.split("/") or DRAWN_PNG.match(key) is not None
    return Thing(
        key=key,
        picture=picture,
        kind="drawing" if drawn else "photo",
        captions=captions,
        speech={code: p for code, p in speech.items() if p.exists()},
    )


def caption_group(caption: str) -> str:
    """What counts as the same caption: Unicode form, case, spacing and the final stop do not matter."""
    folded = unicodedata.normalize("NFKC", caption).casefold()
    return " ".join(folded.split()).rstrip(".!… ")


def picture(path: Path) -> Image.Image:
    """A `SIDE` px square on white: transparent margins cut off, aspect kept, centered.

    A picture of which nothing darker than `FAINT` would be left on white is put on gray, and that is printed.

    SVG goes through resvg at 512 px and 96 dpi without system fonts, so every machine draws the same; resvg
    expands entities declared inside the file (two stamps have some, a namespace each), under its own depth limit,
    and never loads external ones.
    """
    if path.suffix == ".svg":
        png = resvg_py.svg_to_bytes(svg_path=str(path), width=512, dpi=96, skip_system_fonts=True)
        image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    else:
        image = Image.open(path).convert("RGBA")
    box = image.getchannel("A").getbbox()
    if box is None:
        raise ValueError(f"{path} is fully transparent")
    image = image.crop(box)
    side = max(image.size)
    for backdrop in ("white", "gray"):
        square = Image.new("RGBA", (side, side), backdrop)
        square.alpha_composite(image, ((side - image.width) // 2, (side - image.height) // 2))
        rgb = square.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        if np.asarray(rgb).min() <= FAINT:
            break
        print(f"note: {path.stem} cannot be seen on {backdrop}")
    return rgb


def opus(path: Path) -> tuple[bytes, float]:
    """The clip as 16 kHz mono Ogg/Opus at about 20 kbit/s, and its length in seconds.

    Loudness stays as recorded, except that clips whose samples exceed 1 are scaled to a peak of 0.99.
    """
    wave, rate = soundfile.read(path, always_2d=True)
    mono = wave.mean(axis=1)
    common = int(np.gcd(rate, SAMPLE_RATE))
    mono = resample_poly(mono, SAMPLE_RATE // common, rate // common)
    peak = np.abs(mono).max()
    mono = mono * (0.99 / peak) if peak > 0.99 else mono
    buffer = io.BytesIO()
    soundfile.write(buffer, mono, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=0.95)
    return _fixed_serial(buffer.getvalue()), len(mono) / SAMPLE_RATE


def _fixed_serial(ogg: bytes) -> bytes:
    """The same Ogg stream with serial number 1: libsndfile draws a random one, so no two builds would agree.

    Page layout and checksum after RFC 3533, section 6 (CRC-32 with polynomial 0x04c11db7, neither reflected nor
    inverted; `zlib.crc32` is the reflected and inverted one, hence the bit turning).
    """
    pages, at = [], 0
    while at < len(ogg):
        segments = ogg[at + 26]
        end = at + 27 + segments + sum(ogg[at + 27 : at + 27 + segments])
        page = bytearray(ogg[at:end])
        page[14:18] = (1).to_bytes(4, "little")
        page[22:26] = bytes(4)
        page[22:26] = _ogg_crc(bytes(page)).to_bytes(4, "little")
        pages.append(bytes(page))
        at = end
    return b"".join(pages)


def _ogg_crc(page: bytes) -> int:
    reflected = page.translate(bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256)))
    crc = crc32(reflected, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)
