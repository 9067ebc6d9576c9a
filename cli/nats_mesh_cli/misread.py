"""What to say of an option's value that cannot be read. Pure, over what typer tells."""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["number_problem"]

_WANTED: Final = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_parsing": "a number",
    "greater_than_equal": "{ge:g} or more",
    "less_than_equal": "{le:g} or less",
}


def number_problem(error: Any) -> str:
    """``--port abc: a whole number is wanted, such as --port 8480``; empty where ``error`` is about no number, or of a
    version of typer that words it itself."""
    read, parameter = getattr(error.__cause__, "errors", None), getattr(error, "param", None)
    if read is None or parameter is None:
        return ""
    problem = read()[0]
    wanted = _WANTED.get(problem["type"], "").format(**problem.get("ctx", {}))
    if not wanted:
        return ""
    is_option = parameter.param_type_name == "option"
    name = max(parameter.opts, key=len) if is_option else parameter.metavar or parameter.name.upper()
    example = _example(name, error.ctx, parameter)
    such_as = f", such as {name} {example}" if example else ""
    return f"{name} {problem['input']}: {wanted} is wanted{such_as}"


def _example(name: str, context: Any, parameter: Any) -> str:
    """A value that works: as the command's own example has it, else what holds where nothing is said."""
    shown = re.search(rf"{re.escape(name)} (\S+)", getattr(context.command, "epilog", None) or "")
    if shown:
        return shown[1]
    default = parameter.get_default(context, call=False)
    return f"{default:g}" if isinstance(default, int | float) else ""
