"""The pickle inside a PyTorch file, as data: a stack machine that never imports, calls or changes anything real.

`pickletools` splits the stream into opcodes; each opcode and each named object outside the tables below is refused.
Named objects stay names until `_REDUCE` turns the few known ones into dicts, sets and descriptions of tensors.

Why not `pickle.Unpickler` with `find_class`: it calls methods of whatever lies on its stack (append, extend, add,
__setstate__, __new__), sets attributes of what `find_class` returned, and sizes its memo by a number in the file: 7 bytes
cost it 1 GB.
"""

import pickletools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Global(NamedTuple):
    """A name the pickle asked for. It stays a name."""

    module: str
    name: str


class Class(NamedTuple):
    """A class whose pickled objects are read as plain dicts."""

    module: str
    name: str
    attributes: bool = False  # what counts is an object's attributes; else it is a dict itself, and its items count


class Storage(NamedTuple):
    """Where the elements of tensors are: the file entry `data/KEY` with `count` elements of a dtype."""

    dtype: str
    key: str
    count: int


class Tensor(NamedTuple):
    """A strided view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Refused(ValueError):
    """What the pickle holds, in words."""


STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
REBUILD_TENSOR = Global("torch._utils", "_rebuild_tensor_v2")


def loads(data: bytes, classes: Iterable[Class] = ()) -> Any:
    """The pickled object made of dict, list, tuple, set, str, bytes, numbers, bool, None and `Tensor`. Raises Refused.

    Objects of `classes` come as dicts; those of any other class are refused.
    """
    machine = _Machine(classes)
    position: int | None = 0
    try:
        for opcode, argument, start in pickletools.genops(data):
            position = start
            action = _ACTIONS.get(opcode.name)
            if action is None:
                raise Refused(f"opcode {opcode.name} is not allowed")
            action(machine, argument)
        (result,) = machine.stack
    except Refused as error:
        raise Refused(f"{error} (byte {position} of the pickle)") from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise Refused(f"damaged near byte {position} of the pickle: {error}") from error
    if machine.marks:
        raise Refused("damaged, the pickle ends inside a list")
    return result


class _Machine:
    def __init__(self, classes: Iterable[Class]) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.calls = _REDUCE | {Global(row.module, row.name): _dict for row in classes}
        self.attributes = {Global(row.module, row.name) for row in classes if row.attributes}
        self.objects: dict[int, dict] = {}  # by id: dicts that stand for objects whose attributes count

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return self.stack.pop()

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def pop_tuple(self, length: int) -> tuple[Any, ...]:
        if len(self.stack) < length:
            raise IndexError("the stack is too short")
        items = self.stack[len(self.stack) - length :]
        del self.stack[len(self.stack) - length :]
        return tuple(items)

    def top(self, kind: type) -> Any:
        value = self.stack[-1]
        if type(value) is not kind:
            raise Refused(f"{type(value).__name__} instead of {kind.__name__}")
        return value

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def build(self) -> None:
        # State of an OrderedDict (`_metadata` of a state dict) or of another dict (flags of its class) is not needed.
        state = self.pop()
        if type(state) is not dict:
            raise Refused(f"state of type {type(state).__name__} is not allowed")
        target = self.top(dict)
        if id(target) in self.objects:
            target.update(state)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if type(function) is not Global or type(arguments) is not tuple:
            raise Refused(f"a call of {type(function).__name__} is not allowed")
        if function not in self.calls:
            raise Refused(f"a call of {function.module}.{function.name} is not allowed")
        result = self.calls[function](*arguments)
        if function in self.attributes:
            self.objects[id(result)] = result
        self.push(result)

    def named(self, module: str, name: str) -> Global:
        found = Global(module, name)
        if found not in self.calls and not (module == "torch" and name in STORAGES):
            raise Refused(f"{module}.{name} is not allowed")
        return found


def _key(value: Any) -> str | int:
    if type(value) not in (str, int):
        raise Refused(f"a key of type {type(value).__name__} is not allowed")
    return value


def _dict(items: Any = ()) -> dict:
    if type(items) not in (tuple, list):
        raise Refused("a dict made of something else than pairs is not allowed")
    return {_key(key): value for key, value in items}


def _set(items: Any = ()) -> set:
    if type(items) not in (tuple, list):
        raise Refused("a set made of something else than a list is not allowed")
    return {_key(item) for item in items}


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise Refused(f"{value!r:.50} as a size, stride or offset of a tensor")
    return value


def _storage(reference: Any) -> Storage:
    kind, storage, key, _location, count = reference
    if kind != "storage" or type(storage) is not Global or storage.name not in STORAGES or type(key) is not str:
        raise Refused("a persistent id that is no storage")
    return Storage(STORAGES[storage.name], key, _count(count))


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, _gradient: Any, _hooks: Any, bits: Any = None) -> Tensor:
    if bits:  # torch's lazy negation and conjugation: other numbers than the storage holds
        raise Refused("a tensor with metadata is not allowed")
    if type(storage) is not Storage or len(shape) != len(strides):
        raise Refused("a tensor without storage or with a stride too few")
    return Tensor(storage, _count(offset), tuple(map(_count, shape)), tuple(map(_count, strides)))


def _parameter(tensor: Any, *_unused: Any) -> Tensor:
    if type(tensor) is not Tensor:
        raise Refused("a parameter that is no tensor")
    return tensor


_REDUCE: dict[Global, Callable[..., Any]] = {
    Global("collections", "OrderedDict"): _dict,
    Global("__builtin__", "set"): _set,
    Global("builtins", "set"): _set,
    REBUILD_TENSOR: _tensor,
    Global("torch._utils", "_rebuild_parameter"): _parameter,
}


def _push(machine: _Machine, argument: Any) -> None:
    machine.push(argument)


def _stack_global(machine: _Machine) -> None:
    name, module = machine.pop(), machine.pop()
    if type(name) is not str or type(module) is not str:
        raise Refused("a global that is no name")
    machine.push(machine.named(module, name))


def _put(machine: _Machine, index: int) -> None:
    machine.memo[index] = machine.stack[-1]


_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda m, a: None),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT"), _push),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"), _push),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINSTRING", "SHORT_BINSTRING"), _push),
    "NONE": lambda m, a: m.push(None),
    "NEWTRUE": lambda m, a: m.push(True),
    "NEWFALSE": lambda m, a: m.push(False),
    "EMPTY_DICT": lambda m, a: m.push({}),
    "EMPTY_LIST": lambda m, a: m.push([]),
    "EMPTY_TUPLE": lambda m, a: m.push(()),
    "MARK": lambda m, a: m.mark(),
    "TUPLE": lambda m, a: m.push(tuple(m.pop_mark())),
    "TUPLE1": lambda m, a: m.push(m.pop_tuple(1)),
    "TUPLE2": lambda m, a: m.push(m.pop_tuple(2)),
    "TUPLE3": lambda m, a: m.push(m.pop_tuple(3)),
    "APPEND": lambda m, a: _extend(m, [m.pop()]),
    "APPENDS": lambda m, a: _extend(m, m.pop_mark()),
    "SETITEM": lambda m, a: m.set_items(list(m.pop_tuple(2))),
    "SETITEMS": lambda m, a: m.set_items(m.pop_mark()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "PUT"), _put),
    "MEMOIZE": lambda m, a: _put(m, len(m.memo)),
    **dict.fromkeys(("BINGET", "LONG_BINGET", "GET"), lambda m, a: m.push(m.memo[a])),
    "GLOBAL": lambda m, a: m.push(m.named(*a.split(" ", 1))),
    "STACK_GLOBAL": lambda m, a: _stack_global(m),
    "REDUCE": lambda m, a: m.reduce(),
    "NEWOBJ": lambda m, a: m.reduce(),
    "BUILD": lambda m, a: m.build(),
    "BINPERSID": lambda m, a: m.push(_storage(m.pop())),
}


def _extend(machine: _Machine, items: list[Any]) -> None:
    machine.top(list).extend(items)
