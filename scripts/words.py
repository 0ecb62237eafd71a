#!/usr/bin/env python3
"""Checks the words of our comments, docstrings and pages: words.py [ROOT].

Prints a line for each header whose first line does not say what the thing is or does:
it begins with a verb ("Reads safetensors files") or a noun ("The devices of this
machine"), not with a question's word, a pronoun or a preposition. Prints a line for
each sentence of a comment, a docstring or a page whose subject is a clause: it begins
with What, Who, Whose, That which, Whether or How. Questions, a page's headings and its
code are left alone.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# A first line that begins with one of these leaves its subject out.
VAGUE = {
    *(
        "All",
        "Also",
        "Anything",
        "As",
        "At",
        "Between",
        "By",
        "For",
        "From",
        "He",
        "How",
    ),
    *("If", "In", "It", "Its", "On", "One", "Our", "She", "Some", "Something", "That"),
    *("Their", "There", "These", "They", "This", "Those", "To", "We", "What", "When"),
    *("Where", "Whether", "Which", "Who", "Whose", "Why", "With"),
}
# The start of a sentence or a list's item whose subject is a clause; and its end.
CLAUSE = re.compile(
    r"(?:^|[.:;!?)*-] )"
    r"((?:What|Whatever|Who|Whoever|Whose|That which|Whether|How)\b[^.?]*)(.?)"
)
# Lines of a page that end a paragraph and hold no sentence: headings, code.
APART = re.compile(r"#|    |$")
ITEM = re.compile(r" *(?:-|\d+\.) ")
# A comment of its own, or one behind code, which clang-format sets two spaces apart.
OWN = re.compile(r"^\s*//+ ?(.*)$")
BEHIND = re.compile(r"^.*\S {2}// (.*)$")
HASH = re.compile(r"^\s*# (.*)$")


def files(root: Path) -> Iterator[Path]:
    """Give the repository's sources and pages, without generated ones."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        + ["*.h", "*.cc", "*.md", "*.py", ":!*_pb2.py"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    paths = (root / name for name in listed.stdout.splitlines())
    yield from (path for path in paths if path.is_file())


def comments(text: str) -> Iterator[tuple[int, str]]:
    """Give each paragraph of comments as one line, with the number of its first."""
    begin, words = 0, []
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        match = OWN.match(line)
        if match and match[1]:
            begin = begin if words else number
            words.append(match[1].strip())
            continue
        if words:
            yield begin, " ".join(words)
            words = []
        if match := BEHIND.match(line):
            yield number, match[1]


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """Give each paragraph, item and cell of a page, with its first line's number."""
    begin, words, fenced = 0, [], False
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        fence = line.startswith("```")
        fenced ^= fence
        apart = fence or fenced or line.startswith("|") or APART.match(line)
        if words and (apart or ITEM.match(line)):
            yield begin, " ".join(words)
            words = []
        if line.startswith("|"):
            yield from ((number, cell.strip()) for cell in line.split("|"))
        elif not apart:
            begin = begin if words else number
            words.append(ITEM.sub("", line.replace("**", ""), count=1).strip())


def docstrings(text: str) -> Iterator[tuple[int, str]]:
    """Give each paragraph, item and comment of Python, with the number of its text."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            for paragraph in re.split(r"\n\s*\n|\n(?= *- )", str(node.value.value)):
                yield node.lineno, " ".join(paragraph.split())
    begin, words = 0, []
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        match = HASH.match(line)
        if match:
            begin = begin if words else number
            words.append(match[1].strip())
        elif words:
            yield begin, " ".join(words)
            words = []


PARAGRAPHS = {".md": sentences, ".py": docstrings}


def complaints(path: Path) -> Iterator[tuple[int, str]]:
    """Give the number and what is wrong, for each line of a file that is."""
    paragraphs = PARAGRAPHS.get(path.suffix, comments)
    for number, comment in paragraphs(path.read_text()):
        first = comment.split(" ")[0].strip(":,.`")
        if path.suffix == ".h" and number == 1 and first in VAGUE:
            yield number, f"the header begins with '{first}'"
        for match in CLAUSE.finditer(comment):
            if match[2] != "?":
                yield number, f"the sentence begins with a clause: {match[1]}"


def main() -> int:
    """Print what is wrong; return 1 if there is anything."""
    root = (
        Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    ).resolve()
    found = [
        f"{path.relative_to(root)}:{number}: {text}"
        for path in files(root)
        for number, text in complaints(path)
    ]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
