"""Additions to the text of a YAML file that keep its comments, its order and its indentation."""

from collections.abc import Iterator, Mapping, Sequence

import yaml

from udfs.config.reading import parse_yaml

STEP = 2  # columns by which a nested mapping is indented, where the file has none

#: What is added: a text, a number, or a mapping of these.
Content = str | int | Mapping[str, "Content"]


class BracesError(ValueError):
    """A mapping is written in braces, as in JSON, and not in lines of its own."""


def insert(text: str, keys: Sequence[str], name: str, value: Content) -> str:
    """The text with `name: value` behind the other entries of the mapping under `keys`, which is made if missing.

    Raises BracesError for a mapping in braces. An alias is taken for a mapping of its own, so read the result again.
    """
    if "\r\n" in text:
        return insert(text.replace("\r\n", "\n"), keys, name, value).replace("\n", "\r\n")
    node = yaml.compose(text, yaml.SafeLoader)
    if node is None or node.tag == "tag:yaml.org,2002:null":
        return _with_lines(text, len(text.rstrip()), _block(_nested((*keys, name), value), 0, STEP))
    step = _step(node)
    for depth, key in enumerate(keys):
        column = _column(node)
        child = next((found for written, found in node.value if written.value == key), None)
        if child is None:
            lines = _block(_nested((*keys[depth:], name), value), column, step)
            end = _end_of_comments(text, _end(text, node), column) if depth else _end_of_document(text)
            return _with_lines(text, end, ["", *lines])
        if _is_empty(child):
            start, end = child.start_mark.index, child.end_mark.index
            lines = _block(_nested((*keys[depth + 1 :], name), value), column + step, step)
            text = text[:start].rstrip(" ") + text[end:]
            return _with_lines(text, _end_of_line(text, start - 1), lines)
        node = child
    column = _column(node)
    end = _end_of_comments(text, _end(text, node), column)
    return _with_lines(text, end, _block({name: value}, column, step))


def inline(name: str, value: Content) -> str:
    """An entry of a mapping in one line."""
    if not isinstance(value, Mapping):
        return f"{scalar(name)}: {scalar(value)}"
    return f"{scalar(name)}: {{{', '.join(f'{key}: {quoted(part)}' for key, part in value.items())}}}"


def scalar(value: str | int) -> str:
    """A text as YAML, in quotes only if it would be read as something else without them."""
    if isinstance(value, int):
        return str(value)
    try:
        is_plain = parse_yaml(f"{value}: {value}") == {value: value}
    except yaml.YAMLError:
        is_plain = False
    return value if is_plain else quoted(value)


def quoted(value: str) -> str:
    """A text as YAML, in double quotes."""
    return yaml.safe_dump(value, default_style='"', allow_unicode=True, width=float("inf")).rstrip("\n")


def _nested(keys: Sequence[str], value: Content) -> Mapping[str, Content]:
    for key in reversed(keys):
        value = {key: value}
    return value


def _block(content: Mapping[str, Content], column: int, step: int) -> list[str]:
    """The lines of a mapping, the first key of which is at a column."""
    lines = []
    for key, value in content.items():
        start = f"{' ' * column}{scalar(key)}:"
        if isinstance(value, Mapping):
            lines += [start, *_block(value, column + step, step)]
        else:
            lines.append(f"{start} {scalar(value)}")
    return lines


def _column(node: yaml.Node) -> int:
    """The column of a mapping's keys."""
    if not isinstance(node, yaml.MappingNode) or node.flow_style:
        raise BracesError
    return node.value[0][0].start_mark.column


def _step(node: yaml.Node) -> int:
    """How far the nested mappings of a mapping are indented."""
    nested = [value for _, value in node.value if isinstance(value, yaml.MappingNode) and not value.flow_style]
    return _column(nested[0]) - _column(node) if nested else STEP


def _is_empty(node: yaml.Node) -> bool:
    """Whether it is written as {}."""
    return isinstance(node, yaml.MappingNode) and node.flow_style and not node.value


def _end(text: str, node: yaml.Node) -> int:
    """The end of the last thing in a node. Its own end mark is where the next thing begins."""
    return len(text[: max(leaf.end_mark.index for leaf in _leaves(node))].rstrip())


def _leaves(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        for pair in node.value:
            for part in pair:
                yield from _leaves(part)
    elif isinstance(node, yaml.SequenceNode) and not node.flow_style:
        for part in node.value:
            yield from _leaves(part)
    else:
        yield node


def _end_of_comments(text: str, index: int, column: int) -> int:
    """The end of the line at an index, or of the comments right below it that are indented to a column or further."""
    end = _end_of_line(text, index)
    while end < len(text):
        below = _end_of_line(text, end + 1)
        line = text[end + 1 : below]
        if not line.lstrip().startswith("#") or len(line) - len(line.lstrip()) < column:
            break
        end = below
    return end


def _end_of_line(text: str, index: int) -> int:
    end = text.find("\n", index)
    return len(text) if end < 0 else end


def _end_of_document(text: str) -> int:
    """The end of the last line, without the dots that may end a document."""
    return len(text.rstrip().removesuffix("\n...").rstrip())


def _with_lines(text: str, index: int, lines: Sequence[str]) -> str:
    """The text with further lines behind the line that ends at an index."""
    before, after = text[:index], text[index:]
    return "\n".join([*([before] if before else []), *lines]) + (after if after.startswith("\n") else "\n" + after)
