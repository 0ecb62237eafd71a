"""Mutants of a Python source, and the source with all of them in it."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import Any

from mutation import Mutant

OPERATORS = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitAnd: (ast.BitOr,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
SWAPS = {"max": "min", "min": "max", "all": "any", "any": "all"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# Places that no test can tell: types, documentation, and what PyTorch does not run.
SKIPPED = ("annotation", "returns", "decorator_list", "bases", "keywords")


def text(node: ast.AST | None) -> str:
    """Give a node's text, on one line, and of a long one the beginning."""
    line = " ".join(ast.unparse(node).split()) if node else ""
    return line if len(line) <= 120 else line[:117] + "..."


def nodes(
    node: ast.AST, function: str = "", runs: bool = False
) -> Iterator[tuple[str, bool, ast.AST]]:
    """Give what may have mutants below a node, each with its function's name.

    Tell too whether calls of the function run it: no, but the file's import, if it is a
    default or an attribute of a class.
    """
    yield function, runs, node
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        function = f"{function}.{node.name}".lstrip(".")
    for field, value in ast.iter_fields(node):
        if field in SKIPPED and isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not is_for_types(child, field):
                in_body = runs or (isinstance(node, FUNCTIONS) and field == "body")
                yield from nodes(child, function, in_body)


def is_for_types(node: ast.AST, field: str) -> bool:
    """Tell whether nothing runs a node, or only for types and documentation."""
    return (
        field in ("annotation", "format_spec")
        or isinstance(node, ast.Assert)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in text(node.test))
        or (isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript)
            and node.col_offset == 0)
    )  # fmt: skip


def is_text(node: ast.AST) -> bool:
    """Tell whether a node is a string, as far as it shows."""
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def changes(node: ast.AST, assigned: set[str]) -> Iterator[ast.AST | None]:
    """Give what may stand in a node's place; None where it is left out.

    - `assigned`: the variables that have values here.
    """

    def with_(**fields: Any) -> ast.AST:
        other = copy.deepcopy(node)
        for field, value in fields.items():
            setattr(other, field, value)
        return other

    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in OPERATORS.get(type(operator), ()):
                ops = [*node.ops]
                ops[place] = other()
                yield with_(ops=ops)
    elif isinstance(node, ast.BoolOp):
        yield with_(op=OPERATORS[type(node.op)][0]())
        for value in node.values:
            left = [other for other in node.values if other is not value]
            yield copy.deepcopy(left[0]) if len(left) == 1 else with_(values=left)
    elif isinstance(node, ast.BinOp):
        if not is_text(node.left) and not is_text(node.right):
            for other in OPERATORS.get(type(node.op), ()):
                yield with_(op=other())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield copy.deepcopy(node.operand)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield ast.Constant(node.value + 1)
        if node.value:
            yield ast.Constant(node.value - 1)
    elif isinstance(node, ast.IfExp):
        yield with_(body=node.orelse, orelse=node.body)
    elif isinstance(node, ast.Call) and text(node.func) in SWAPS:
        yield with_(func=ast.Name(SWAPS[text(node.func)], ast.Load()))
    elif isinstance(node, ast.Return) and node.value and text(node.value) != "None":
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.AugAssign):
        for other in OPERATORS.get(type(node.op), ()):
            yield with_(op=other())
        yield None
    elif isinstance(node, ast.Assign):
        names = {n.id for n in ast.walk(node.targets[0]) if isinstance(n, ast.Name)}
        if names <= assigned:  # Otherwise nothing has a value without it.
            yield None
    elif isinstance(
        node, (ast.Expr, ast.Raise, ast.Delete, ast.Continue, ast.Break)
    ) and not isinstance(getattr(node, "value", None), (ast.Yield, ast.YieldFrom)):
        yield None


def conditions(node: ast.AST) -> list[ast.expr]:
    """Give the conditions of a statement or of a comprehension."""
    if isinstance(node, (ast.If, ast.While)):
        return [node.test]
    return node.ifs if isinstance(node, ast.comprehension) else []


def of_condition(test: ast.expr) -> Iterator[ast.expr]:
    """Give what a condition may become, besides what its operators may."""
    if isinstance(test, ast.Constant):
        return
    if not isinstance(test, (ast.BoolOp, ast.Compare, ast.UnaryOp)):
        yield ast.UnaryOp(ast.Not(), copy.deepcopy(test))
    yield ast.Constant(True)
    yield ast.Constant(False)


def assigned_before(function: ast.AST, line: int) -> set[str]:
    """Give the variables that a function assigns above a line, its arguments too."""
    return {
        node.arg if isinstance(node, ast.arg) else node.id
        for node in ast.walk(function)
        if isinstance(node, ast.arg)
        or (isinstance(node, ast.Name) and node.lineno < line)
    }


def mutants_of_file(module: str, file: str, tree: ast.Module) -> Iterator[Mutant]:
    """Give all mutants of a file; their place is a node, and what it becomes."""
    scopes: dict[str, ast.AST] = {"": tree}
    for function, runs, node in nodes(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            scopes[f"{function}.{node.name}".lstrip(".")] = node
        assigned: set[str] = set()
        if isinstance(node, ast.Assign) and isinstance(scopes[function], FUNCTIONS):
            assigned = assigned_before(scopes[function], node.lineno)
        found = [(node, new) for new in changes(node, assigned)]
        found += [
            (test, new) for test in conditions(node) for new in of_condition(test)
        ]
        for old, new in found:
            yield Mutant(
                module=module,
                file=file,
                function=function,
                at_import=not runs,
                line=getattr(old, "lineno", 0),
                place=(old, new),
                old=text(old),
                new=text(new) if new else None,
            )


def instrument(tree: ast.Module, mutants: list[Mutant]) -> str:
    """Give a source with mutants in it, each behind a look at its number."""
    here: dict[int, list[Mutant]] = {}
    for mutant in mutants:
        here.setdefault(id(mutant.place[0]), []).append(mutant)

    class Instrument(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> Any:
            result = self.generic_visit(node)
            for mutant in here.get(id(node), ()):
                new = mutant.place[1]
                chosen = ast.parse(f"_mutant({mutant.number})", mode="eval").body
                if isinstance(node, ast.stmt):
                    result = ast.If(chosen, [new or ast.Pass()], [result])
                else:
                    result = ast.IfExp(chosen, new, result)
            return result

    tree = Instrument().visit(tree)
    after = 1 + max(
        (i for i, node in enumerate(tree.body)
         if isinstance(node, ast.ImportFrom) and node.module == "__future__"),
        default=-1,
    )  # fmt: skip
    tree.body[after:after] = ast.parse("from mutant_switch import on as _mutant").body
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"
