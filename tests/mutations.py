"""Damage for files: bits, bytes, and values in what is JSON, YAML or the header of a safetensors file."""

import copy
import gzip
import json

import yaml

# What a value is exchanged for: other types, numbers that are none or too great, texts that no file can hold.
ODD = [None, True, False, 0, -1, 1.5, 10**30, -(10**400), 1e308, float("nan"), float("inf"), 2**62, 2**31, 10**12]
ODD += ["", " ", "x", "\ud800", "a\0b", "9" * 50, "false", "1e5", b"x"]
ODD += [[], {}, ["a"], [1, [2]], {"a": 1}, [[[[[[]]]]]]]


def damage_bytes(data, rng):
    """One to three changes of the bytes, most near the beginning or the end, where formats say what they are."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not data:
            break
        ends = (rng.randrange(min(len(data), 1024)), -rng.randrange(1, min(len(data), 512) + 1))
        at = rng.choice((rng.randrange(len(data)), *ends))
        at %= len(data)
        match rng.randrange(6):
            case 0 | 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                del data[at:]
            case 3:
                del data[at : at + rng.randrange(1, 9)]
            case 4:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 5:
                part = data[at : at + rng.randrange(1, 64)]
                data[at : at + len(part)] = rng.choice(
                    (bytes(len(part)), b"\xff" * len(part), rng.randbytes(len(part)))
                )
    return bytes(data)


def damage_value(value, rng):
    """A copy in which one part is another value, gone, doubled, or under another name."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places:
        return rng.choice(ODD)
    holder, key = rng.choice(places)
    match rng.randrange(5):
        case 0 | 1:
            holder[key] = rng.choice(ODD)
        case 2:
            del holder[key]
        case 3 if isinstance(holder, dict):
            holder[f"{key}x"] = holder.pop(key)
        case 4 if isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        case _:
            other, place = rng.choice(places)
            holder[key] = copy.deepcopy(other[place]) if isinstance(other, dict) and place in other else rng.choice(ODD)
    return value


def _places(value):
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def damage_json(data, rng):
    return _dumps(damage_value(json.loads(data), rng)).encode("utf-8", "surrogatepass")


def damage_json_lines(data, rng):
    lines = data.decode().splitlines()
    at = rng.randrange(len(lines))
    lines[at] = _dumps(damage_value(json.loads(lines[at]), rng))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def damage_yaml(data, rng):
    value = damage_value(yaml.safe_load(data), rng)
    return yaml.safe_dump(value, allow_unicode=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def damage_table(data, rng):
    lines = data.decode().splitlines()
    at = rng.randrange(len(lines))
    lines[at] = rng.choice((lines[at] + ",more", '"' + lines[at], "", lines[at].replace(",", ";"), "\0", "x" * 200_000))
    return "\n".join(lines).encode()


def damage_header(data, rng):
    """A safetensors file with one value of its header exchanged."""
    length = int.from_bytes(data[:8], "little")
    header = _dumps(damage_value(json.loads(data[8 : 8 + length]), rng)).encode("utf-8", "surrogatepass")
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def gzipped(damage):
    """Damage inside of what is gzipped."""
    return lambda data, rng: gzip.compress(damage(gzip.decompress(data), rng), mtime=0)


def _dumps(value):
    return json.dumps(value, ensure_ascii=False, default=repr)
