"""What a prompt template may contain: filling it in then ends, and takes time and memory in proportion to its length.

Users share templates, and Jinja is a programming language: a few characters of it can fill the memory or never end.
"""

from collections.abc import Iterator

from jinja2 import nodes

LISTS = ("examples", "contrast", "passages")
"""Values that a loop may go over."""
FILTERS = {
    **dict.fromkeys(("abs", "capitalize", "count", "first", "last", "length", "lower", "title", "upper"), 0),
    **dict.fromkeys(("float", "int", "round", "trim"), 1),
    **dict.fromkeys(("d", "default", "join"), 2),
}
"""Name -> how many arguments it may have. Only `join` makes a text longer, and only one of the lists may be joined."""
MAX_DIGITS = 10
"""Largest argument of `round`, which computes ten to this power."""
ALLOWED = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.CondExpr),
    *(nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Tuple, nodes.Keyword),
    *(nodes.Filter, nodes.Test, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not),
    *(nodes.Concat, nodes.Add, nodes.Sub, nodes.Neg, nodes.Pos),
)
NAMES = {
    nodes.Call: "a call",
    nodes.CallBlock: "a call",
    nodes.Macro: "a macro",
    nodes.Assign: "set",
    nodes.AssignBlock: "set",
    nodes.Include: "another template",
    nodes.Import: "another template",
    nodes.FromImport: "another template",
    nodes.Extends: "another template",
    nodes.Mul: "`*`",
    nodes.Pow: "`**`",
    nodes.Mod: "`%`",
    nodes.Div: "`/`",
    nodes.FloorDiv: "`//`",
    nodes.List: "a list of its own",
    nodes.Dict: "a table of its own",
}
"""Parts of a template that are not allowed, as messages call them."""


def refused_parts(template: nodes.Template) -> Iterator[str]:
    """Yield a description of each part of a parsed template that is not allowed, with its line."""
    waiting: list[tuple[nodes.Node, bool]] = [(template, False)]
    while waiting:
        node, in_loop = waiting.pop()
        if problem := _problem(node, in_loop):
            yield f"{problem} in line {node.lineno}"
        else:
            inside = in_loop or isinstance(node, nodes.For)
            waiting += [(child, inside) for child in node.iter_child_nodes()]


def _problem(node: nodes.Node, in_loop: bool) -> str | None:
    if not isinstance(node, ALLOWED):
        return NAMES.get(type(node), f"`{type(node).__name__.lower()}`")
    if isinstance(node, nodes.Name) and node.ctx == "store" and node.name in LISTS:
        return f"the name `{node.name}` for a value of its own"
    if isinstance(node, nodes.For):
        if in_loop:
            return "a loop in a loop"
        if node.recursive or not _is_list(node.iter):
            return f"a loop over something else than {', '.join(LISTS)}"
    if isinstance(node, nodes.Filter):
        return _filter_problem(node)
    return None


def _filter_problem(node: nodes.Filter) -> str | None:
    if node.name not in FILTERS:
        return f"the filter `{node.name[:40]}`"
    arguments = [*node.args, *(keyword.value for keyword in node.kwargs)]
    constants = [argument.value for argument in arguments if isinstance(argument, nodes.Const)]
    if node.name == "join" and not (_is_list(node.node) and len(constants) == len(arguments)):
        return f"`join` of something else than {', '.join(LISTS)}"
    if len(arguments) > FILTERS[node.name] or node.dyn_args is not None or node.dyn_kwargs is not None:
        return f"more arguments of `{node.name}` than {FILTERS[node.name]}"
    if node.name == "round" and arguments and constants not in [[digits] for digits in range(MAX_DIGITS + 1)]:
        return f"`round` to something else than 0 to {MAX_DIGITS} digits"
    return None


def _is_list(node: nodes.Node | None) -> bool:
    """Whether an expression is one of the lists, or a part of one, such as `examples[:3]`."""
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        return _is_list(node.node)
    return isinstance(node, nodes.Name) and node.name in LISTS
