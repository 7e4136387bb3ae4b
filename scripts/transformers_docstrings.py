"""
Convert docstrings in the style of transformers to Markdown for the API reference (mkdocs.yml); an extension of griffe.

Sections become lists, `name (`type`, *optional*): description` becomes a list item, and [`Name`] becomes a link if
the reference contains that name. A documented parameter that the function does not have causes a warning, which
`make docs` treats as an error.
"""

import re
from typing import Any

import griffe


logger = griffe.get_logger(__name__)

SECTIONS = ("Args", "Attributes", "Raises", "Returns", "Yields")
# "name (`type`, *optional*, defaults to 1): text"; the type may span several lines and contain parentheses.
PARAMETER = re.compile(r"(?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)*) \((?P<type>.+?)\):(?=\s|$)(?P<text>.*)", re.DOTALL)
RAISED = re.compile(r"(?P<names>\w+): (?P<text>.*)", re.DOTALL)
# Descriptions by `auto_docstring` of arguments that all models have.
COMMON = {
    "pixel_values": "(`torch.Tensor` of shape `(batch_size, num_channels, height, width)`): Images prepared "
    "by the image processor."
}
REFERENCE = re.compile(r"\[`(?P<hidden>~?)(?P<name>[\w.]+)`\](?![\[(])")


def is_indented(line: str) -> bool:
    """Return whether a line is empty or indented."""
    return not line.strip() or line.startswith(" ")


def entries(lines: list[str]) -> list[str]:
    """Split a section into entries: lines at its indentation, each with the deeper lines that follow."""
    width = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    found: list[list[str]] = []
    for line in (line[width:] for line in lines):
        if found and is_indented(line):
            found[-1].append(line)
        elif line.strip():
            found.append([line])
    return ["\n".join(entry).strip() for entry in found]


def item(entry: str, section: str) -> tuple[str, list[str]]:
    """Convert an entry to a Markdown list item; return it with the names that it documents."""
    pattern = RAISED if section == "Raises" else PARAMETER
    match = None if section in ("Returns", "Yields") else pattern.fullmatch(entry)
    if match is None:
        head, names = entry, []
    else:
        names = match["names"].split(", ")
        kind = f" ({match['type']})" if section != "Raises" else ""
        head = ", ".join(f"**`{name}`**" for name in names) + f"{kind}: {match['text'].strip()}"
    # Lists and paragraphs within an entry belong to its item.
    first, *rest = head.splitlines()
    return "\n".join([f"* {first}", *(f"    {line.strip()}" if line.strip() else "" for line in rest)]), names


def as_markdown(text: str) -> tuple[str, list[str]]:
    """Convert the sections of a docstring to lists; return it with the names of the documented arguments."""
    lines, done, documented = text.splitlines(), [], []
    while lines:
        line = lines.pop(0)
        section = line.rstrip().removesuffix(":")
        if line == line.lstrip() and section in SECTIONS and line.rstrip().endswith(":"):
            body = []
            while lines and is_indented(lines[0]):
                body.append(lines.pop(0))
            items = [item(entry, section) for entry in entries(body)]
            done += ["", f"**{section}**", "", *(markdown for markdown, _ in items), ""]
            documented += [name for _, names in items for name in names if section == "Args"]
        else:
            done.append(line)
    return "\n".join(done), documented


def link(match: re.Match, obj: griffe.Object) -> str:
    """Convert a name to a link, or to code if it is not from this package."""
    name, shown = match["name"], match["name"].rpartition(".")[2] if match["hidden"] else match["name"]
    first, dot, rest = name.partition(".")
    try:
        path = obj.resolve(first)
        path = obj.modules_collection[path].canonical_path + dot + rest
    except (griffe.NameResolutionError, griffe.AliasResolutionError, KeyError):
        return f"`{shown}`"
    return f'<autoref identifier="{path}" optional><code>{shown}</code></autoref>'


def is_completed(obj: griffe.Object) -> bool:
    """Return whether transformers' `auto_docstring` completes the docstring."""
    return any(str(decorator.value).startswith("auto_docstring") for decorator in getattr(obj, "decorators", ()))


def introduction(obj: griffe.Object) -> str:
    """Return the text that transformers' `auto_docstring` puts before the docstring."""
    for decorator in getattr(obj, "decorators", ()):
        found = re.search(r"custom_intro=(['\"])(.*?)\1", str(decorator.value), re.DOTALL)
        if found:
            return " ".join(re.sub(r"\\n|\s+", " ", found[2]).split())
    return ""


class TransformersDocstrings(griffe.Extension):
    """Extension that converts every docstring of the package to Markdown."""

    def on_object(self, *, obj: griffe.Object, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        intro = introduction(obj)
        if obj.docstring is None:
            if intro:
                obj.docstring = griffe.Docstring(intro, parent=obj)
            return
        text = obj.docstring.value.strip("\n")
        # The arguments of a docstring that `auto_docstring` completes have no title.
        if is_completed(obj) and re.match(r"\w+ \(`", text):
            head, *more = re.split(r"\n(?=(?:Example|Returns):)", text, maxsplit=1)
            common = [f"{name} {COMMON[name]}" for name in COMMON if name in getattr(obj, "parameters", ())]
            text = "\n".join(["Args:", *(f"    {line}" for line in [*common, *head.splitlines()]), *more])
        markdown, documented = as_markdown(f"{intro}\n\n{text}" if intro else text)
        if isinstance(obj, griffe.Function):
            known = {parameter.name for parameter in obj.parameters}
            if not any(parameter.kind is griffe.ParameterKind.var_keyword for parameter in obj.parameters):
                for name in documented:
                    if name.lstrip("*") not in known:
                        logger.warning(f"{obj.path} documents {name}, which is not one of its parameters.")
        obj.docstring.value = REFERENCE.sub(lambda match: link(match, obj), markdown)
