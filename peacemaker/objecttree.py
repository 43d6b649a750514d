"""Objects of the API as the tree that policies are read from; it has no lines and columns."""

from peacemaker.yamltree import MAX_DEPTH, Kind, Mapping, Node, Scalar, Sequence, YamlError


def node_of(value: object, depth: int = 1) -> Node:
    """The tree of what a JSON decoder returns. Raises YamlError where it is too deep."""
    if depth > MAX_DEPTH:
        raise YamlError(f"nested too deeply (allowed {MAX_DEPTH} levels)")
    match value:
        case dict():
            pairs = ((_scalar(key), node_of(each, depth + 1)) for key, each in value.items())
            return Mapping(0, 0, tuple(pairs))
        case list():
            return Sequence(0, 0, tuple(node_of(each, depth + 1) for each in value))
        case _:
            return _scalar(value)


def _scalar(value: object) -> Scalar:
    match value:
        case str():
            return Scalar(0, 0, value, Kind.STRING, "", None)
        case bool():
            return Scalar(0, 0, str(value).lower(), Kind.BOOLEAN, "", None)
        case int():
            return Scalar(0, 0, str(value), Kind.INTEGER, "", None)
        case None:
            return Scalar(0, 0, "null", Kind.NULL, "", None)
        case _:
            return Scalar(0, 0, str(value), Kind.OTHER, "", None)
