"""The types of the expression language, and what the checker found out about an expression.

CEL's type checker knows structs only as protobuf messages, and tells what it found only as a
protobuf message (`CheckedExpr`, of which just the fields read here are declared; the wire format
lets a reader leave out the rest). No generated code is needed for either.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import groupby
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from peacemaker.signals import SIGNALS, SignalType

PACKAGE = "in"
"""Where the structs live: an operator of CEL, so that no expression can name or construct one."""

STRUCTS = {"Node": "node", "NodePsi": "node.psi", "Vm": "vm", "VmPsi": "vm.psi"}
"""Each struct by its name, and the dotted name of the signals that are its fields."""

_Fields = Mapping[str, tuple[int, str]]

_SCALARS = {
    "int": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "double": descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
}

# The part of cel.expr.CheckedExpr (checked.proto, syntax.proto) that is read here.
_CHECKED: Mapping[str, _Fields] = {
    "Checked": {"types": (3, "*TypeOf"), "expr": (4, "Expr"), "source": (5, "Source")},
    "TypeOf": {"id": (1, "int"), "type": (2, "Type")},
    "Type": {
        "primitive": (3, "int"),
        "list": (6, "ListType"),
        "map": (7, "MapType"),
        "message": (9, "string"),
    },
    "ListType": {"element": (1, "Type")},
    "MapType": {"key": (1, "Type"), "value": (2, "Type")},
    "Source": {"positions": (4, "*Position")},
    "Position": {"id": (1, "int"), "offset": (2, "int")},
    "Expr": {
        "id": (2, "int"),
        "select": (5, "Select"),
        "call": (6, "Call"),
        "list": (7, "List"),
        "struct": (8, "Struct"),
        "comprehension": (9, "Comprehension"),
    },
    "Select": {"operand": (1, "Expr"), "field": (2, "string")},
    "Call": {"target": (1, "Expr"), "arguments": (3, "*Expr")},
    "List": {"elements": (1, "*Expr")},
    "Struct": {"entries": (2, "*Entry")},
    "Entry": {"key": (3, "Expr"), "value": (4, "Expr")},
    "Comprehension": {
        "range": (2, "Expr"),
        "initial": (4, "Expr"),
        "condition": (5, "Expr"),
        "step": (6, "Expr"),
        "result": (7, "Expr"),
    },
}


def _file(package: str, messages: Mapping[str, _Fields]) -> descriptor_pb2.FileDescriptorProto:
    """Declare messages. A field type is a scalar, a message, `*`message (repeated) or `labels`."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto", package=package, syntax="proto2"
    )
    field_type = descriptor_pb2.FieldDescriptorProto
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            field = message.field.add(
                name=field_name, number=number, label=field_type.LABEL_OPTIONAL
            )
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
                continue
            field.type = field_type.TYPE_MESSAGE
            if kind == "labels":
                entry = message.nested_type.add(name=f"{field_name.capitalize()}Entry")
                entry.options.map_entry = True
                for part_number, part in enumerate(("key", "value"), start=1):
                    entry.field.add(
                        name=part,
                        number=part_number,
                        label=field_type.LABEL_OPTIONAL,
                        type=field_type.TYPE_STRING,
                    )
                field.label = field_type.LABEL_REPEATED
                field.type_name = f".{package}.{name}.{entry.name}"
                continue
            if kind.startswith("*"):
                field.label = field_type.LABEL_REPEATED
            field.type_name = f".{package}.{kind.removeprefix('*')}"
    return file


@cache
def struct_pool() -> descriptor_pool.DescriptorPool:
    """Return the pool with the structs `Node` and `Vm`, made from the table of signals."""
    names = {prefix: struct for struct, prefix in STRUCTS.items()}
    messages: dict[str, dict[str, tuple[int, str]]] = {}
    by_struct = groupby(SIGNALS.values(), key=lambda signal: signal.name.rpartition(".")[0])
    for prefix, signals in by_struct:
        fields = messages.setdefault(names[prefix], {})
        for signal in signals:
            kind = "labels" if signal.type is SignalType.LABELS else signal.type.value
            fields[signal.name.rpartition(".")[2]] = (len(fields) + 1, kind)
    for struct, prefix in STRUCTS.items():
        owner, _, field = prefix.rpartition(".")
        if owner:
            fields = messages[names[owner]]
            fields[field] = (len(fields) + 1, struct)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_file(PACKAGE, messages).SerializeToString())
    return pool


@cache
def _checked_class() -> type[Message]:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_file("checked", _CHECKED).SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("checked.Checked"))


class Checked:
    """What the checker found out about one expression. Raises DecodeError if it nests too deep."""

    __slots__ = ("_checked", "_types")

    def __init__(self, serialized: bytes) -> None:
        checked: Any = _checked_class().FromString(any_pb2.Any.FromString(serialized).value)
        self._checked = checked
        self._types = {entry.id: entry.type for entry in checked.types}

    def untyped(self) -> int | None:
        """Return the offset in characters of a part whose type is not known, None if all are.

        Lists of mixed values and some constructions have no type of their own, so the checker
        lets everything pass that is done with them. Where every type is known, nothing that is
        evaluated can fail for its type.
        """
        unknown = {key for key, type_ in self._types.items() if not _is_known(type_)}
        positions = self._checked.source.positions
        offsets = [position.offset for position in positions if position.id in unknown]
        return min(offsets, default=0) if unknown else None

    def signals(self) -> frozenset[str]:
        """Return the dotted names of the signals that the expression refers to."""
        return frozenset(self._signals(self._checked.expr))

    def _signals(self, part: Any) -> Iterator[str]:
        if part.DESCRIPTOR.name == "Select":
            operand, prefix = part.operand, self._struct(part.operand)
            if prefix is not None:
                name = f"{prefix}.{part.field}"
                yield from (known for known in SIGNALS if f"{known}.".startswith(f"{name}."))
                # In vm.psi.some10 the inner vm.psi is not a use of all of vm.psi.
                if "." in prefix and operand.HasField("select"):
                    operand = operand.select.operand
            yield from self._signals(operand)
            return
        for field, value in part.ListFields():
            if field.message_type is not None:
                for inner in value if field.is_repeated else (value,):
                    yield from self._signals(inner)

    def _struct(self, expr: Any) -> str | None:
        type_ = self._types.get(expr.id)
        return None if type_ is None else STRUCTS.get(type_.message.removeprefix(f"{PACKAGE}."))


def _is_known(type_: Any) -> bool:
    if type_.HasField("list"):
        return _is_known(type_.list.element)
    if type_.HasField("map"):
        return _is_known(type_.map.key) and _is_known(type_.map.value)
    if type_.HasField("message"):
        return type_.message.removeprefix(f"{PACKAGE}.") in STRUCTS
    return bool(type_.HasField("primitive"))


__all__ = ["PACKAGE", "STRUCTS", "Checked", "DecodeError", "struct_pool"]
