"""Calling a C++ pool from a compiled program that does not hold its address.

EnvPool's handlers read the address of their pool from an attribute, `handle`, that is part of the program. Programs here
are built without it: the first operand numbers the pool, and the function registered in the handler's place supplies the
attribute, then calls the handler. Such a program serves every pool of its configuration and can be cached on disk.

The structures are those of XLA's foreign function interface, `xla/ffi/api/c_api.h`.
"""

import ctypes as c
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32


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
_SIGN = np.uint32(0x80000000)

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


def register(target: str, send: Any, recv: Any) -> None:
    """Registers EnvPool's two handlers, by their capsules, as one that steps a pool; once a process and target.

    Operands are the pool's number, then what `send` takes; results are the number, then what `recv` gives.
    """
    if target in _registered:
        return
    # The handlers run under the interpreter's lock: no EnvPool thread ever takes it, and giving it up costs more.
    prototype = c.PYFUNCTYPE(c.c_void_p, c.POINTER(_Frame))
    pointer = c.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = c.c_void_p, [c.py_object, c.c_char_p]
    send, recv = (prototype(pointer(capsule, None)) for capsule in (send, recv))

    def step(frame: Any) -> Any:
        f = frame.contents
        args, rets = f.args, f.rets
        sent, received = args.size, rets.size
        if not sent:  # asked for its version, not to run
            return send(frame)
        data = c.c_void_p.from_address(args.items[0] + _BUFFER_DATA).value
        attributes = _handles.get(c.c_int32.from_address(data).value)
        if attributes is not None:
            f.attributes = attributes
        rets.size = 1
        error = send(frame)
        args.size, rets.size = 1, received
        error = error or recv(frame)
        args.size = sent
        return error

    _registered[target] = c.CFUNCTYPE(c.c_void_p, c.POINTER(_Frame))(step)
    jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(_registered[target]), platform="cpu", api_version=1)


def words(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """How 64-bit numbers are declared to a program that knows 32 bits only: as pairs of words, the low one first."""
    return jax.ShapeDtypeStruct((*shape, 2), jnp.uint32)


def narrow(x: Array, dtype: str) -> Array:
    """Words of the 64-bit type named, as 32-bit numbers; whatever has 32 bits or fewer stays."""
    match dtype:
        case "float64":
            return _to_float(x)
        case "int64":
            return jax.lax.bitcast_convert_type(x[..., 0], jnp.int32)
        case "uint64":
            return x[..., 0]
        case _:
            return x


def widen(x: Array, dtype: str) -> Array:
    """The number type named, as words if it has 64 bits."""
    match dtype:
        case "float64":
            return _from_float(x.astype(jnp.float32))
        case "int64":
            x = x.astype(jnp.int32)
            return jax.lax.bitcast_convert_type(jnp.stack([x, x >> 31], -1), jnp.uint32)
        case _:
            return x.astype(dtype)


def _to_float(x: UInt32[Array, "*d 2"]) -> Float[Array, "*d"]:
    """Rounds to nearest, ties to even, as a cast does; subnormal results become 0."""
    low, high = x[..., 0], x[..., 1]
    exponent = ((high >> 20) & 0x7FF).astype(jnp.int32) - (1023 - 127)
    mantissa = ((high & 0xFFFFF) << 3) | (low >> 29)
    rest = low & 0x1FFFFFFF
    up = (rest > 0x10000000) | ((rest == 0x10000000) & (mantissa & 1 == 1))
    bits = (exponent.astype(jnp.uint32) << 23) + mantissa + up.astype(jnp.uint32)
    infinite = jnp.where((exponent == 0x7FF - (1023 - 127)) & (mantissa | rest != 0), 0x7FC00000, 0x7F800000)
    bits = jnp.where(exponent <= 0, 0, jnp.where(exponent >= 255, infinite.astype(jnp.uint32), bits))
    return jax.lax.bitcast_convert_type(bits | (high & _SIGN), jnp.float32)


def _from_float(x: Float[Array, "*d"]) -> UInt32[Array, "*d 2"]:
    """Exact for finite numbers; subnormal ones become 0."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    sign, exponent, mantissa = bits & _SIGN, (bits >> 23) & 0xFF, bits & 0x7FFFFF
    high = jnp.where(exponent == 0, 0, ((exponent + (1023 - 127)) << 20) | (mantissa >> 3))
    low = jnp.where(exponent == 0, 0, mantissa << 29)
    return jnp.stack([low, high | sign], -1)
