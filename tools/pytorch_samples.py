#!/usr/bin/env python3
"""pytorch_samples.py FOLDER: writes PyTorch checkpoints of a few tensors, without PyTorch.

They are equal to what torch.save writes: its archive, and a pickle that names its functions. The seeds
in tests/fuzz/corpus/fuzz_pytorch/ come from this tool. tests/pytorch.c says how each must be read.
"""

import collections
import os
import pickle
import struct
import sys
import types
import zipfile
from io import BytesIO

torch = types.ModuleType("torch")
utils = types.ModuleType("torch._utils")
sys.modules["torch"], sys.modules["torch._utils"] = torch, utils


def module_function(module, name):
    def function(*args):
        raise AssertionError("only named, never called")

    function.__module__, function.__name__, function.__qualname__ = module.__name__, name, name
    setattr(module, name, function)
    return function


rebuild = module_function(utils, "_rebuild_tensor_v2")
parameter = module_function(utils, "_rebuild_parameter")


class Storage:
    def __init__(self, kind, key, data, n):
        self.kind, self.key, self.data, self.n = kind, key, data, n


def storage_type(name):
    made = type(name, (), {"__module__": "torch"})
    setattr(torch, name, made)
    return made


FLOAT, BFLOAT16, LONG = map(storage_type, ["FloatStorage", "BFloat16Storage", "LongStorage"])


class Tensor:
    def __init__(self, storage, offset, shape, strides, is_parameter=False):
        self.made = (storage, offset, shape, strides, False, collections.OrderedDict())
        self.is_parameter = is_parameter

    def __reduce__(self):
        if self.is_parameter:
            return parameter, (Tensor(*self.made[:4]), True, collections.OrderedDict())
        return rebuild, self.made


class Pickler(pickle.Pickler):
    def __init__(self, to, protocol, storages):
        super().__init__(to, protocol)
        self.storages = storages

    def persistent_id(self, thing):
        if not isinstance(thing, Storage):
            return None
        self.storages[thing.key] = thing.data
        return ("storage", thing.kind, thing.key, "cpu", thing.n)


def save(path, thing, protocol=2, byteorder=b"little", name="archive", drop=()):
    storages, pickled = {}, BytesIO()
    Pickler(pickled, protocol, storages).dump(thing)
    with zipfile.ZipFile(path, "w") as z:
        z.writestr(f"{name}/data.pkl", pickled.getvalue())
        z.writestr(f"{name}/byteorder", byteorder)
        for key, data in storages.items():
            if key not in drop:
                z.writestr(f"{name}/data/{key}", data)
        z.writestr(f"{name}/version", b"3\n")


class Evil:
    def __reduce__(self):
        return os.system, ("touch pickle-was-run",)


def main(folder):
    os.makedirs(folder, exist_ok=True)
    six = Storage(FLOAT, "0", struct.pack("<6f", *range(6)), 6)
    half = Storage(BFLOAT16, "1", struct.pack("<4H", 0x3F80, 0x4000, 0x4040, 0x4080), 4)
    ids = Storage(LONG, "2", struct.pack("<2q", 1, 2), 2)

    def at(name):
        return os.path.join(folder, name)

    a, b = Tensor(six, 0, (2, 3), (3, 1)), Tensor(half, 1, (3,), (1,))
    last_row = Tensor(six, 3, (1, 3), (77, 1))  # the stride of a dimension of 1 does not matter
    state = collections.OrderedDict(a=a, b=b, row=last_row, n=Tensor(ids, 0, (2,), (1,)))
    state._metadata = collections.OrderedDict({"": {"version": 1}})  # as in state_dict()
    save(at("dict"), {"a": a, "b": b, "scalar": Tensor(six, 5, (), ())})
    save(at("ordered"), state)
    save(at("parameter"), {"a": Tensor(six, 0, (2, 3), (3, 1), True)}, name="pytorch_model")
    training = {"epoch": 3, "lr": 0.1, "state_dict": state, "optimizer": {"step": a}, "x": None}
    save(at("training"), training, protocol=4)
    save(at("evil"), {"a": a, "b": Evil()})
    save(at("evil_beside"), {"state_dict": {"a": a}, "args": Evil()})
    save(at("transposed"), {"a": Tensor(six, 0, (3, 2), (1, 3))})
    save(at("outside"), {"a": Tensor(six, 1, (2, 3), (3, 1))})
    save(at("missing"), {"a": a}, drop=("0",))
    save(at("big_endian"), {"a": a}, byteorder=b"big")
    save(at("no_tensors"), {"epoch": 3})


if __name__ == "__main__":
    main(sys.argv[1])
