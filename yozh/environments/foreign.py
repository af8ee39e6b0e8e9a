"""Calling a C++ pool from a compiled program that does not hold its address.

EnvPool's handlers read the address of their pool from an attribute, `handle`, that is part of the program. Programs here
are built without it: the first operand numbers the pool, and the function registered in the handler's place supplies the
attribute, then calls the handler. Such a program serves every pool of its configuration and can be cached on disk.

The structures are those of XLA's foreign function interface, `xla/ffi/api/c_api.h`.
"""

import ctypes as c
from typing import Any

import jax


class _List(c.Structure):
    """`XLA_FFI_Args` and `XLA_FFI_Rets`."""

    _fields_ = [("struct_size", c.c_size_t), ("extension", c.c_void_p),
                ("size", c.c_int64), ("types", c.c_void_p), ("items", c.POINTER(c.c_void_p))]  # fmt: skip


class _Attributes(c.Structure):
    """`XLA_FFI_Attrs`."""

    _fields_ = [("struct_size", c.c_size_t), ("extension", c.c_void_p),
                ("size", c.c_int64), ("types", c.c_void_p), ("names", c.c_void_p), ("items", c.c_void_p)]  # fmt: skip


class _Frame(c.Structure):
    """`XLA_FFI_CallFrame`."""

    _fields_ = [("struct_size", c.c_size_t), ("extension", c.c_void_p), ("api", c.c_void_p), ("context", c.c_void_p),
                ("stage", c.c_int), ("args", _List), ("rets", _List), ("attributes", _Attributes),
                ("future", c.c_void_p)]  # fmt: skip


_BUFFER_DATA = 24  # offset of `XLA_FFI_Buffer.data`
_ATTRIBUTE_IS_SCALAR, _INT64 = 3, 5

_handles: dict[int, _Attributes] = {}
_registered: dict[str, Any] = {}


def attach(number: int, handle: bytes) -> None:
    """Makes a pool known under a number; `handle` is its address as EnvPool tells it."""
    value = c.c_int64(int.from_bytes(handle, "little", signed=True))
    scalar = (c.c_int64 * 2)(_INT64, c.addressof(value))
    text = c.create_string_buffer(b"handle")
    name = (c.c_int64 * 2)(c.addressof(text), len(text.value))
    types, names, items = c.c_int(_ATTRIBUTE_IS_SCALAR), c.c_void_p(c.addressof(name)), c.c_void_p(c.addressof(scalar))
    attributes = _Attributes(c.sizeof(_Attributes), None, 1, *(c.addressof(x) for x in (types, names, items)))
    attributes.alive = (value, scalar, text, name, types, names, items)
    _handles[number] = attributes


def detach(number: int) -> None:
    """Forgets a pool; a program that still asks for it fails with "handle not found" rather than crash."""
    _handles.pop(number, None)


def register(target: str, capsule: Any) -> None:
    """Registers an EnvPool handler, by its capsule, under a name of ours; once a process."""
    if target in _registered:
        return
    pointer = c.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = c.c_void_p, [c.py_object, c.c_char_p]
    prototype = c.CFUNCTYPE(c.c_void_p, c.POINTER(_Frame))
    handler = prototype(pointer(capsule, None))

    def call(frame: Any) -> Any:
        f = frame.contents
        if f.args.size:
            data = c.c_void_p.from_address(f.args.items[0] + _BUFFER_DATA).value
            attributes = _handles.get(c.c_int32.from_address(data).value)
            if attributes is not None:
                f.attributes = attributes
        return handler(frame)

    _registered[target] = prototype(call)
    jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(_registered[target]), platform="cpu", api_version=1)
