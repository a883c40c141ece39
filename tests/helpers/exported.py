"""An exported run taken apart and put together again, by the format of safetensors alone."""

import json
import struct
from pathlib import Path

import numpy as np

from cradl_jax.runs import archive


def unpacked(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """Return the plain values of an exported run, and its tensors by name."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    about = json.loads(header.pop("__metadata__")["run"])
    tensors = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        dtype = np.dtype({"F32": "<f4", "I32": "<i4", "F64": "<f8"}[entry["dtype"]])
        tensors[name] = np.frombuffer(data[first:last], dtype).reshape(entry["shape"])
    return about, tensors


def with_checksum(about: dict, tensors: dict[str, np.ndarray]) -> dict:
    """Return plain values with the checksum that belongs to them and the tensors."""
    rest = {name: value for name, value in about.items() if name != "checksum"}
    return {**rest, "checksum": archive.checksum(rest, tensors)}


def packed(path: Path, about: object, tensors: dict[str, np.ndarray]) -> Path:
    """Write a file of these plain values and tensors."""
    header, blocks, end = {"__metadata__": {"run": json.dumps(about)}}, [], 0
    for name, array in tensors.items():
        block = array.tobytes()
        dtype = {"f4": "F32", "i4": "I32", "f8": "F64"}[array.dtype.str[1:]]
        offsets = [end, end + len(block)]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        blocks.append(block)
        end += len(block)
    return raw(path, json.dumps(header).encode(), b"".join(blocks))


def raw(path: Path, header: bytes, data: bytes = b"", length: int | None = None) -> Path:
    """Write a file of this header and data; `length` is what it claims for the header."""
    length = len(header) if length is None else length
    path.write_bytes(struct.pack("<Q", length) + header + data)
    return path
