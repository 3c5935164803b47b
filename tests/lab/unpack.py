# SPDX-License-Identifier: LGPL-2.1-or-later
"""Takes what can be booted directly out of packed files: unpack.py vmlinux BZIMAGE OUT | unpack.py gzip FILE OUT."""
import gzip
import lzma
import struct
import sys
import zlib

SECTOR = 512


def vmlinux(image):
    """The ELF kernel inside a bzImage; offsets as in the kernel's x86 boot protocol, since 2.08."""
    if image[0x202:0x206] != b"HdrS":
        raise ValueError("this is no bzImage")
    sectors = image[0x1f1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * SECTOR + offset
    payload = image[start:start + length]
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31).decompress(payload)
    raise ValueError("the kernel is packed in a way that is not known here")


def main(what, source, target):
    with open(source, "rb") as file:
        packed = file.read()
    plain = vmlinux(packed) if what == "vmlinux" else gzip.decompress(packed)
    if not plain.startswith(b"\x7fELF"):
        raise ValueError(f"{source}: no ELF file inside")
    with open(target, "wb") as file:
        file.write(plain)


try:
    main(*sys.argv[1:])
except (OSError, ValueError, lzma.LZMAError, zlib.error) as why:
    sys.exit(f"lab: {sys.argv[2]}: {why}")
