"""Read PNG, JPEG and TIFF: pictures, or stacks of them, without a position in the patient."""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from medclipad.errors import VolumeError
from medclipad.volume.components import Component, component_index
from medclipad.volume.memory_budget import in_words, require_allowed, require_memory
from medclipad.volume.read_errors import itk_path, volume_errors
from medclipad.volume.readers.png_checks import check_png
from medclipad.volume.volume import LPS_TO_RAS, Volume

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
"""Suffixes of pictures, in lower case."""

_FORMATS = ("PNG", "JPEG", "TIFF")
_GREY = {
    "1": np.uint8, "L": np.uint8, "I;16": np.uint16, "I;16L": np.uint16, "I;16B": np.uint16, "I": np.int32,
    "F": np.float32,
}  # fmt: skip
_COLOUR = ("RGB", "RGBA", "LA", "P", "PA")
_BITS, _SAMPLE_FORMAT, _DESCRIPTION, _ORIENTATION = 258, 339, 270, 274  # TIFF and EXIF tags
_PHOTOMETRIC, _COMPRESSION, _SAMPLES = 262, 259, 277
_DEFLATE = (8, 32946)
_UNSIGNED, _SIGNED = 1, 2  # values of the sample format
_NEEDED = {
    "BitsPerSample": (_BITS,), "PhotometricInterpretation": (_PHOTOMETRIC,), "its offsets": (273, 324),
    "its byte counts": (279, 325),
}  # fmt: skip
_NO_GEOMETRY = (
    "a picture has no spacing and no position in the patient; 1 mm per pixel is assumed, with anterior at the top"
)


def picture_files(folder: Path) -> list[Path]:
    """Return the pictures in a folder, not in its subfolders, sorted by name with 9.png before 10.png."""
    files = (path for path in folder.iterdir() if path.suffix.lower() in PICTURES and path.is_file())
    return sorted(files, key=lambda path: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", path.name.lower())])


def read_pictures(files: Sequence[Path], component: Component, name: str) -> Volume:
    """Read pictures of one size as the axial slices of a volume.

    Parameters
    ----------
    files
        Pictures from feet to head. A TIFF counts as its pages.
    component
        Index of the colour channel to read. Colours whose channels are all identical count as grey.
    name
        Name of the case.

    Returns
    -------
    Volume
        Grey values with the file's own type.

    Raises
    ------
    VolumeError
        If the pictures do not form one stack, or one of them cannot be read without a loss.
    """
    pages = [page for path in files for page in _pages(path)]
    first, *others = pages
    for other in others:
        if other[1:] != first[1:]:
            raise VolumeError(
                f"{name}: {other[0].name} is {_described(*other[1:])}, {first[0].name} is {_described(*first[1:])}; "
                "pass pictures of one type and size, or a single one."
            )
    _, size, dtype, channels = first
    source = files[0].name if len(files) == 1 else name
    shape = (len(pages), size[1], size[0])
    size = np.prod(shape, dtype=float) * dtype.itemsize * channels
    require_allowed(size, source, shape[::-1])
    require_memory(size, source, f"reading {in_words(shape[::-1])}")
    array = np.empty((*shape, channels), dtype=dtype)
    filled = 0
    for path in files:
        for pixels in _pixels(path):
            array[filled] = pixels.reshape(array.shape[1:])
            filled += 1
    notes = [_NO_GEOMETRY]
    if channels > 1 and component is None and all((array[..., 0] == array[..., c]).all() for c in range(1, channels)):
        array = array[..., :1].copy()
        notes.append("its colour channels are identical; one of them is used as grey")
    index = component_index(array.shape[-1], component, source, "colour channels")
    if len(files) > 1:
        notes.append(f"{len(files)} pictures are stacked from {files[0].name} to {files[-1].name}, feet to head")
    return Volume(
        array[..., index].transpose(2, 1, 0),
        LPS_TO_RAS,
        name=name,
        metadata={"format": files[0].suffix[1:].upper(), "notes": notes},
    )


def _pages(path: Path) -> list[tuple[Path, tuple[int, int], np.dtype, int]]:
    """Return (file, (columns, rows), type, channels) of each page, from its header."""
    if not path.is_file():
        raise VolumeError(f"{path}: there is no such file; check the list.")
    with volume_errors(path), _no_warnings(), _opened(path) as image:
        count = getattr(image, "n_frames", 1)
        if image.format != "TIFF" and count > 1:
            raise VolumeError(f"{path.name}: it holds {count} pictures; save the one to read as a separate file.")
        if image.format == "PNG":
            check_png(path)
        pages = []
        for number in range(count):
            image.seek(number)
            if image.getexif().get(_ORIENTATION, 1) != 1:
                raise VolumeError(f"{path.name}: its header says that it is rotated or mirrored; save it upright.")
            if image.format == "TIFF":
                _check_tiff(image, path, count)
            pages.append((path, image.size, *_pixel_type(image, path)))
        return pages


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Turn Pillow's warnings about damage, such as tags and pages that are cut off, into ValueError."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    damage = [str(each.message) for each in caught if each.category is UserWarning and "PIL" in each.filename]
    if damage:
        raise ValueError(damage[0])


def _require_same_decoding(path: Path, pixels: np.ndarray) -> None:
    """Raise ValueError if ITK decodes other pixels from a JPEG, which has no checksum.

    libjpeg continues after damage; but two decoders then continue in different ways.
    """
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(itk_path(path))
    reader.SetImageIO("JPEGImageIO")
    if not np.array_equal(SimpleITK.GetArrayFromImage(reader.Execute()), pixels):
        raise ValueError("two decoders read different pixels from it")


def _opened(path: Path) -> Image.Image:
    """Return an opened picture; raise VolumeError if it is not PNG, JPEG or TIFF."""
    try:
        return Image.open(path, formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise VolumeError(
            f"{path.name}: not a PNG, JPEG or TIFF picture of 8-bit, 16-bit or float32 values; save it as one."
        ) from error


def _pixel_type(image: Image.Image, path: Path) -> tuple[np.dtype, int]:
    """Return the (type, channels) that the pixels of a page become."""
    if image.mode in _GREY:
        return np.dtype(_GREY[image.mode]), 1
    if image.mode in _COLOUR:
        return np.dtype(np.uint8), 3
    raise VolumeError(f"{path.name}: colours ({image.mode}) have no single scale of values; save it as grey values.")


def _check_tiff(image: Image.Image, path: Path, count: int) -> None:
    """Raise an error if Pillow would guess, truncate or invert values, or if the pages are not just slices."""
    assert isinstance(image, TiffImagePlugin.TiffImageFile)  # by its format
    tags = image.tag_v2
    _require_checksums(path, tags)
    if missing := [name for name, either in _NEEDED.items() if not any(tag in tags for tag in either)]:
        raise ValueError(f"its header lacks {missing[0]}")
    if tags[_PHOTOMETRIC] == 0:
        raise VolumeError(f"{path.name}: its value 0 means white; save it with 0 for black.")
    bits, sample_format = tags.get(_BITS, (1,))[0], tags.get(_SAMPLE_FORMAT, (1,))[0]
    if bits > 32 or (bits == 32 and sample_format == _UNSIGNED):
        raise VolumeError(
            f"{path.name}: its {bits}-bit values would be truncated; save it with 16-bit or float32 values."
        )
    row = -(-image.width * bits * tags.get(_SAMPLES, 1) // 8)
    if tags.get(_COMPRESSION, 1) == 1 and 279 in tags and not 0 <= sum(tags[279]) - row * image.height < row:
        raise ValueError(f"its strips are {sum(tags[279])} bytes instead of {row * image.height}")
    if bits == 8 and sample_format == _SIGNED:
        raise VolumeError(f"{path.name}: its signed 8-bit values would be read as unsigned; save it with 16 bits.")
    samples = tags.get(_SAMPLES, 1)
    if samples != len(image.getbands()) or (samples > 1 and bits > 8):
        raise VolumeError(
            f"{path.name}: its {samples} samples per pixel of {bits} bits would be truncated; save one of them as grey."
        )
    if not _is_plain_stack(str(tags.get(_DESCRIPTION, "")), count):
        raise VolumeError(
            f"{path.name}: its pages are channels or time points, or not all of its images are pages; "
            "save the slices of one channel as a plain stack."
        )


def _is_plain_stack(description: str, count: int) -> bool:
    """Return whether the pages are the slices of one channel, by what ImageJ or OME-TIFF wrote about them."""
    numbers = {key: int(n) for key, n in re.findall(r"^(images|channels|frames)=(\d{1,9})", description, re.MULTILINE)}
    numbers |= {key: int(n) for key, n in re.findall(r'\bSize([CT])="(\d{1,9})"', description)}
    several = max(numbers.get(key, 1) for key in ("channels", "frames", "C", "T"))
    return several <= 1 and numbers.get("images", count) == count


def _require_checksums(path: Path, tags: TiffImagePlugin.ImageFileDirectory_v2) -> None:
    """Raise zlib.error if the checksum of a strip or tile, which libtiff does not check, is wrong."""
    if tags.get(_COMPRESSION) not in _DEFLATE:
        return
    offsets = tags.get(273, ()) or tags.get(324, ())
    sizes = tags.get(279, ()) or tags.get(325, ())
    with path.open("rb") as file:
        for offset, size in zip(offsets, sizes, strict=True):
            file.seek(offset)
            inflater, packed = zlib.decompressobj(), file.read(min(size, path.stat().st_size))
            while packed and not inflater.eof:
                inflater.decompress(packed, 1 << 22)
                packed = inflater.unconsumed_tail
            if not inflater.eof:
                raise ValueError("its compressed pixels are cut off")


def _pixels(path: Path) -> Iterator[np.ndarray]:
    """Yield (rows, columns) or (rows, columns, 3) values of each page."""
    with volume_errors(path), _no_warnings():
        with _opened(path) as image:
            file_format = image.format
            if file_format == "PNG":
                image.verify()  # the checksums, which decoding does not check
        with _opened(path) as image:
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                pixels = np.asarray(_plain(image, path))
                if file_format == "JPEG":
                    _require_same_decoding(path, pixels)
                yield pixels


def _plain(image: Image.Image, path: Path) -> Image.Image:
    """Return grey values unchanged, colours as opaque RGB."""
    if image.mode in _GREY:
        return image.convert("L") if image.mode == "1" else image
    full = image.convert("RGBA")
    if full.getchannel("A").getextrema() != (255, 255):
        raise VolumeError(f"{path.name}: parts of it are transparent; save it without transparency.")
    return full.convert("RGB")


def _described(size: tuple[int, int], dtype: np.dtype, channels: int) -> str:
    """Return size and type of a page as text."""
    return f"{size[0]} x {size[1]} {'grey' if channels == 1 else 'colour'} pixels of type {dtype}"
