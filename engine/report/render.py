"""A table of texts as Markdown and as LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

NONE = "–"


@dataclass(frozen=True)
class Table:
    """cells: a list of texts a row, the name first. best: (row, column) of the marked ones. breaks: first row -> title above it.

    groups: (title, columns) above the header, from the left on; an empty title stands above nothing.
    """

    header: list[str]
    cells: list[list[str]]
    best: set[tuple[int, int]]
    caption: list[str]
    breaks: dict[int, str] = field(default_factory=dict)
    groups: list[tuple[str, int]] = field(default_factory=list)


def markdown(table: Table) -> str:
    """Aligned: it also reads in a terminal."""
    body = [
        [f"**{text}**" if (i, j) in table.best else (text if j else text.replace("|", "\\|")) for j, text in enumerate(line)]
        for i, line in enumerate(table.cells)
    ]
    for at, title in sorted(table.breaks.items(), reverse=True):
        body.insert(at, [f"*{title}*", *[""] * (len(table.header) - 1)])
    titles = [title for title, columns in table.groups or [("", len(table.header))] for _ in range(columns)]
    header = [f"{title} {name}".strip() for title, name in zip(titles, table.header, strict=True)]
    widths = [max(3, *map(len, column)) for column in zip(header, *body, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([*(_line(line, widths) for line in (header, rule, *body)), "", *table.caption, ""])


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (f"{text:{'>' if i else '<'}{width}}" for i, (text, width) in enumerate(zip(texts, widths, strict=True)))
    return "| " + " | ".join([first, *rest]) + " |"


def document(table: Table, name: str) -> str:
    """A file that pdflatex compiles as it is, and that gives the table alone to a document that has \\input{it}.

    LaTeX sets \\@nodocument to \\relax at \\begin{document}: that tells the two apart. Needs booktabs.
    """
    return "\n".join([
        f"% Compiles as it is; \\input{{{name}}} in a document with \\usepackage{{booktabs}} takes the table alone.",
        "\\expandafter\\ifx\\csname @nodocument\\endcsname\\relax \\let\\afterthetable\\relax \\else",
        "\\documentclass{article}",
        "\\usepackage[margin=2cm]{geometry}",
        "\\usepackage{booktabs}",
        "\\pagestyle{empty}",
        "\\begin{document}",
        "\\def\\afterthetable{\\end{document}}",
        "\\fi%",
        "\\begin{table}[htbp]",
        "\\centering",
        f"\\caption{{{escaped(' '.join(table.caption))}}}",
        f"\\label{{tab:{name}}}",
        "\\smallskip",
        "\\small",
        "\\setlength{\\tabcolsep}{4pt}",
        tabular(table, range(len(table.header))),
        "\\end{table}%",
        "\\afterthetable",
        "",
    ])  # fmt: skip


def tabular(table: Table, columns: Sequence[int]) -> str:
    def line(texts: Iterable[str]) -> str:
        return " & ".join(texts) + " \\\\"

    lines = ["\\begin{tabular}{l" + "r" * (len(columns) - 1) + "}", "\\toprule"]
    if table.groups:
        lines += _group_lines(table.groups)
    lines += [line(escaped(table.header[j]) for j in columns), "\\midrule"]
    for i, texts in enumerate(table.cells):
        if i in table.breaks:
            lines += ["\\midrule", f"\\multicolumn{{{len(columns)}}}{{l}}{{\\emph{{{escaped(table.breaks[i])}}}}} \\\\"]
        lines.append(line(f"\\textbf{{{escaped(texts[j])}}}" if (i, j) in table.best else escaped(texts[j]) for j in columns))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"])


def _group_lines(groups: Sequence[tuple[str, int]]) -> list[str]:
    cells, rules, at = [], [], 1
    for title, columns in groups:
        cells.append(f"\\multicolumn{{{columns}}}{{c}}{{{escaped(title)}}}")
        if title:
            rules.append(f"\\cmidrule(lr){{{at}-{at + columns - 1}}}")
        at += columns
    return [" & ".join(cells) + " \\\\", *rules]


SPECIAL = str.maketrans({
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", NONE: "--",
    "†": "$\\dagger$", "‡": "$\\ddagger$", "±": "$\\pm$", "−": "$-$", "Δ": "$\\Delta$", "·": "$\\cdot$",
    "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}", "[": "{[}", "]": "{]}", "*": "{*}",
})  # fmt: skip


def escaped(text: str) -> str:
    """Escape a text for LaTeX; brackets and stars too: at the start of a line they would belong to the `\\\\` before it.

    A letter that pdflatex has not in its Latin fonts becomes a question mark.
    """
    return "".join(character if ord(character) < 0x180 else "?" for character in text.translate(SPECIAL))
