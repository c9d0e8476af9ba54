"""Seeded mutations that keep most of a file's structure, so that many get past the header."""

from __future__ import annotations

import json
import zlib
from copy import deepcopy
from typing import Any, Final

import numpy as np
import onnx

DEEP: Final = "so deep that a parser must give up"
"""Stands for lists in lists in lists, which no encoder writes."""

JUNK: Final[tuple[Any, ...]] = (
    None, True, -1, 0, 1e308, float("nan"), 2**63, "", "x" * 300, "\x00", "../..", [], {}, [[]],
    "64x64", "0x0", "999999x999999", "fp16", {"a": {"b": []}}, ["skip"] * 40, [8, 4, 32], 12.5,
    float("inf"), 10**400, "\ud800", "9" * 5000 + "x9", DEEP,
)  # fmt: skip

_NEST: Final = "[" * 100_000 + "]" * 100_000
_TOML_WORDS: Final = {"null": '"null"', "NaN": "nan", "Infinity": "inf"}


def mutate_bytes(data: bytes, random: np.random.Generator, header: int) -> bytes:
    """Flip, cut, repeat or drop bytes; the first `header` ones are mostly left alone."""
    body = bytearray(data)
    low = 0 if random.random() < 0.15 else min(header, len(body) - 1)
    for _ in range(int(random.integers(1, 12))):
        if len(body) <= low + 4:
            break
        at = int(random.integers(low, len(body)))
        length = int(random.integers(1, 1 + min(64, len(body) - at)))
        match int(random.integers(0, 6)):
            case 0 | 1:
                body[at] = int(random.integers(0, 256))
            case 2:
                body[at : at + length] = random.bytes(length)
            case 3:
                body[at:at] = body[at : at + length]
            case 4:
                del body[at : at + length]
            case _:
                body[at : at + 4] = int(random.choice([0, 1, 2**31 - 1, 2**32 - 1])).to_bytes(
                    4, "big"
                )
    if random.random() < 0.1:
        del body[int(random.integers(low, len(body))) :]
    return bytes(body)


def overwrite_bytes(data: bytes, random: np.random.Generator, header: int) -> bytes:
    """Change bytes in place: boxes of an MP4 point at each other by position."""
    body = bytearray(data)
    for _ in range(int(random.integers(1, 12))):
        at = int(random.integers(header, len(body) - 64))
        length = 1 if random.random() < 0.7 else int(random.integers(2, 64))
        body[at : at + length] = random.bytes(length)
    return bytes(body)


def mutate_png(data: bytes, random: np.random.Generator) -> bytes:
    """Pixels and header fields changed, checksums right again, so that the decoder goes on."""
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        chunks[kind] = chunks.get(kind, b"") + data[at + 8 : at + 8 + length]
        at += 12 + length
    pixels = bytearray(zlib.decompress(chunks[b"IDAT"]))
    if random.random() < 0.5:
        pixels = bytearray(mutate_bytes(bytes(pixels), random, 1))
    else:
        # The first byte of a row is its filter; most values of it end the decoding at once.
        row = 1 + 3 * int.from_bytes(chunks[b"IHDR"][:4], "big")
        for at in random.integers(0, len(pixels), 20):
            if at % row:
                pixels[at] = int(random.integers(256))
    chunks[b"IDAT"] = zlib.compress(pixels)
    if random.random() < 0.3:
        chunks[b"IHDR"] = mutate_bytes(chunks[b"IHDR"], random, 0)[:13].ljust(13, b"\0")
    out = data[:8]
    for kind, body in chunks.items():
        checksum = zlib.crc32(kind + body).to_bytes(4, "big")
        out += len(body).to_bytes(4, "big") + kind + body + checksum
    return out if random.random() < 0.9 else mutate_bytes(out, random, 33)


def mutate_safetensors(data: bytes, random: np.random.Generator) -> bytes:
    """The header's tree changed, or values overwritten in place."""
    length = int.from_bytes(data[:8], "little")
    header, payload = data[8 : 8 + length], bytearray(data[8 + length :])
    if random.random() < 0.6:
        at = int(random.integers(len(payload) - 8))
        payload[at : at + 8] = random.bytes(8)
    else:
        header = json.dumps(mutate_json(json.loads(header), random)).encode()
    whole = len(header).to_bytes(8, "little") + header + bytes(payload)
    return whole if random.random() < 0.9 else mutate_bytes(whole, random, 8)


def mutate_json(value: Any, random: np.random.Generator) -> Any:
    """A JSON tree with one to three nodes replaced, dropped or renamed."""
    copy = deepcopy(value)
    for _ in range(int(random.integers(1, 4))):
        holder, key = _random_slot(copy, random)
        if holder is None:
            return _junk(random)
        match int(random.integers(0, 4)):
            case 0 | 1:
                holder[key] = _junk(random)
            case 2:
                del holder[key]
            case _ if isinstance(holder, dict):
                holder[f"{key}_"] = holder.pop(key)
            case _:
                holder.append(deepcopy(holder[key]))
    return copy


def dumped(tree: Any) -> str:
    """The tree as JSON."""
    return json.dumps(tree).replace(json.dumps(DEEP), _NEST)


def _junk(random: np.random.Generator) -> Any:
    """One of `JUNK`, free to be changed."""
    return deepcopy(JUNK[int(random.integers(len(JUNK)))])


def _random_slot(value: Any, random: np.random.Generator) -> tuple[Any, Any]:
    """A container inside a tree and one of its keys."""
    slots: list[tuple[Any, Any]] = []
    stack = [value]
    while stack:
        node = stack.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node))
        for key in keys:
            slots.append((node, key))
            if isinstance(node[key], dict | list):
                stack.append(node[key])
    return slots[int(random.integers(len(slots)))] if slots else (None, None)


def mutate_text(text: str, random: np.random.Generator) -> str:
    """Lines dropped, repeated, or with a value replaced."""
    lines = text.splitlines()
    for _ in range(int(random.integers(1, 4))):
        if not lines:
            break
        at = int(random.integers(len(lines)))
        match int(random.integers(0, 5)):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[at])
            case 2:
                lines[at] = lines[at].replace("=", random.choice(["==", ":", "= [", "= -"]), 1)
            case _:
                key = lines[at].partition("=")[0].strip() or "key"
                junk = _junk(random)
                lines[at] = f"{key} = {_toml(junk)}"
    return "\n".join(lines) + "\n"


def _toml(junk: Any) -> str:
    """A value of `JUNK` as TOML writes it, nearly."""
    if junk == DEEP:
        return _NEST
    text = json.dumps(junk)
    return _TOML_WORDS.get(text, text)


def mutate_model(model: onnx.ModelProto, random: np.random.Generator) -> bytes:
    """An ONNX graph with wires crossed, attributes changed, nodes dropped, weights cut."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = copy.graph.node
    for _ in range(int(random.integers(1, 5))):
        node = nodes[int(random.integers(len(nodes)))]
        match int(random.integers(0, 8)):
            case 0 if node.input:
                node.input[0] = nodes[int(random.integers(len(nodes)))].output[0]
            case 1:
                node.op_type = str(random.choice(["Relu", "Conv", "Nothing", "Concat", "Loop"]))
            case 2 if node.attribute and node.attribute[0].ints:
                node.attribute[0].ints[0] = int(random.choice([-1, 0, 2**40, 3]))
            case 3:
                nodes.remove(node)
            case 4:
                weight = copy.graph.initializer[int(random.integers(len(copy.graph.initializer)))]
                weight.raw_data = weight.raw_data[: int(random.integers(len(weight.raw_data) + 1))]
            case 5:
                shape = copy.graph.input[0].type.tensor_type.shape
                shape.dim[int(random.integers(4))].dim_value = int(random.choice([0, -1, 7, 2**33]))
            case 6 if copy.metadata_props:
                text = model.metadata_props[0].value
                tree = mutate_json(json.loads(text), random)
                copy.metadata_props[0].value = dumped(tree)
            case _:
                copy.opset_import[0].version = int(random.choice([0, 1, 99, 18]))
    return bytes(copy.SerializeToString())
