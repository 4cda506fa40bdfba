"""The page in TeX: the small Markdown that the report is written in, as LaTeX, and from it a PDF.

Headings, paragraphs, pipe tables with <br>, images, lists, quotes, emphasis, code and links; nothing else occurs.
Needs no package of Python's; a TeX engine is used where one is installed, and the page does without one.
"""
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from lib.artifacts import UserError, digest_of, sha256

ENGINES = ("pdflatex", "xelatex", "tectonic")
RUNS = 3                         # a table that crosses pages finds its column widths on the third
SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\u2212": "$-$", "\u00d7": r"$\times$", "\u2192": r"$\rightarrow$", "\u2264": r"$\le$", "\u2265": r"$\ge$",
    "\u2248": r"$\approx$", "\u00b1": r"$\pm$", "\u03b1": r"$\alpha$", "\u03bb": r"$\lambda$", "\u03c1": r"$\rho$",
    "\u0394": r"$\Delta$", "\u00b7": r"$\cdot$", "\u2016": r"$\|$", "\u2713": r"$\surd$", "\u2717": r"$\times$",
    "\u00b2": r"\textsuperscript{2}", "\u2013": "--", "\u2014": "---", "\u2026": r"\ldots{}", "\u2018": "`",
    "\u2019": "'", "\u201c": "``", "\u201d": "''"}
KEPT = "\n\1"                   # the second marks where `breakable` allows a break
INLINE = re.compile(
    r"`(?P<code>[^`]+)`|\[(?P<text>(?:\\.|[^\]\\])+)\]\((?P<url>[^)\s]+)\)|\*\*(?P<bold>(?:\\.|[^\\])+?)\*\*"
    r"|\*(?P<italic>(?:\\.|[^\s*\\])(?:`[^`]*`|\\.|[^*`\\])*)\*|(?P<br><br>)|\\(?P<escaped>[\\`*_|#<>\[\]~{}])"
)
PREAMBLE = r"""\documentclass[10pt,a4paper]{article}
\usepackage{iftex}
\ifPDFTeX
  \usepackage[T1]{fontenc}
  \pdfinfoomitdate=1 \pdftrailerid{} \pdfsuppressptexinfo=-1
\fi
\usepackage{lmodern}
\usepackage[margin=15mm]{geometry}
\usepackage{graphicx,longtable,array,booktabs}
\usepackage[hidelinks,bookmarksnumbered]{hyperref}
\setlength{\parindent}{0pt} \setlength{\parskip}{5pt plus 2pt} \setlength{\tabcolsep}{3pt}
\newcommand{\head}[2]{\phantomsection\addcontentsline{toc}{#1}{#2}}
\emergencystretch=3em \sloppy
\begin{document}
"""


def escape(text):
    """Plain text as TeX. A letter that has no TeX here (a model's answers may hold any) becomes its code point."""
    def known(letter):
        return letter in KEPT or 0x20 <= ord(letter) < 0x180
    return "".join(SPECIAL.get(letter, letter if known(letter) else f"[U+{ord(letter):04X}]") for letter in text)


def breakable(text):
    """Escaped text that may break after each of `_ . / + :` and, in a long run of hex digits, after every eighth."""
    text = re.sub(r"[0-9a-f]{24,}", lambda run: "\1".join(re.findall(".{1,8}", run.group())), text)
    return re.sub(r"(\\_|[./+:])", r"\1\\allowbreak{}", escape(text)).replace("\1", r"\allowbreak{}")


def between(text):
    """A run of text without marks; only what looks like a path or a key may break inside a word."""
    return breakable(text) if "_" in text or re.search(r"\w\.\w+\.\w", text) else escape(text)


def inline(text):
    """A run of text with emphasis, code, links and line breaks."""
    out, end = [], 0
    for match in INLINE.finditer(text):
        out.append(between(text[end:match.start()]))
        end = match.end()
        if match["code"]:
            out.append(rf"\texttt{{{breakable(match['code'])}}}")
        elif match["text"]:                  # a link into the repository leads nowhere from a PDF: its text stays
            url, shown = re.sub(r"([%#])", r"\\\1", match["url"]), inline(match["text"])
            out.append(rf"\href{{{url}}}{{{shown}}}" if url.startswith("http") else shown)
        elif match["bold"] or match["italic"]:
            out.append(rf"\text{'bf' if match['bold'] else 'it'}{{{inline(match['bold'] or match['italic'])}}}")
        else:
            out.append(r"\newline " if match["br"] else escape(match["escaped"]))
    return "".join([*out, between(text[end:])]).replace(" n = ", " n~=~")


def table(lines):
    """A pipe table as a longtable; columns share the width by the length of what stands in them."""
    head, _, *body = ([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])] for line in lines)
    plain = [[re.sub(r"\]\([^)]*\)|[\[\]*`]", "", cell) for cell in row] for row in (head, *body)]
    wants = []
    for column in zip(*plain):
        parts = [part for cell in column for part in cell.split("<br>")]
        longest = max((len(word) for part in parts for word in re.split(r"[\s_./]", part)), default=1)
        wants.append(max(longest + 1, min(max(map(len, parts)) ** 0.75, 16), 2))
    tight, widths = 2 * len(head), [want / sum(wants) for want in wants]
    columns = "".join(r">{\raggedright\arraybackslash}p{\dimexpr "
                      rf"{w:.4f}\linewidth-{w * tight:.3f}\tabcolsep\relax}}" for w in widths)
    top, *rows = (" & ".join(map(inline, row)) + r" \\" for row in (head, *body))
    gap = "\n\\addlinespace[1.5pt]\n" if len(head) > 5 else "\n"
    return "\n".join([r"{\scriptsize", rf"\begin{{longtable}}{{@{{}}{columns}@{{}}}}", r"\toprule", top,
                      r"\midrule\endhead", gap.join(rows), r"\bottomrule", r"\end{longtable}}"])


def convert(page):
    """The whole document from the page's Markdown."""
    out = [PREAMBLE]
    for block in re.split(r"\n\s*\n", page.strip()):
        lines = block.split("\n")
        image = re.fullmatch(r"!\[([^\]]*)\]\(([^)]+)\)", block.strip())
        if image:
            out.append(r"{\centering\includegraphics[width=\linewidth,height=0.78\textheight,keepaspectratio]"
                       rf"{{{image[2]}}}\par}}\nopagebreak")
        elif lines[0].startswith("#"):
            level, text = min(len(lines[0]) - len(lines[0].lstrip("#")), 3) - 1, lines[0].lstrip("# ")
            kind, size = ("section", "section", "subsection")[level], ("LARGE", "Large", "large")[level]
            out.append(rf"\head{{{kind}}}{{{escape(re.sub(r'[*`]', '', text))}}}"
                       rf"{{\{size}\bfseries {inline(text)}\par}}\nopagebreak")
            out += [inline(" ".join(lines[1:]))] if lines[1:] else []
        elif lines[0].startswith("|"):
            out.append(table(lines))
        elif lines[0].startswith("- "):
            items = [r"\item " + inline(" ".join(item.split())) for item in re.split(r"\n- ", "\n" + block)[1:]]
            out.append("\n".join([r"\begin{itemize}", *items, r"\end{itemize}"]))
        elif lines[0].startswith("> "):
            out.append(r"\begin{quote}" + inline(" ".join(line.lstrip("> ") for line in lines)) + r"\end{quote}")
        elif not lines[0].startswith("<!--"):
            out.append("\\\\\n".join(inline(" ".join(part.split())) for part in re.split(r"  \n", block)))
    return "\n\n".join([*out, r"\end{document}"]) + "\n"


def write(page, at, to=None):
    """Write report.tex into `at`, beside the figures, and report.pdf where an engine is installed; return a line that
    says what became of the PDF. to: where the page goes, if not to stay in `at`, and an earlier PDF may be.

    The PDF ends with a comment that names what it was made from, so it is made again only if that changed. Its bytes
    depend on the page and the engine's version alone. UserError if the engine stops."""
    tex, pdf, text = at / "report.tex", (to or at) / "report.pdf", convert(page)
    tex.write_text(text, encoding="utf-8", newline="\n")
    pictures = sorted(set(re.findall(r"\\includegraphics\[[^\]]*\]\{([^}]+)\}", text)))
    mark = f"% page {digest_of({name: sha256(at / name) for name in ('report.tex', *pictures)})}\n".encode()
    if pdf.is_file() and pdf.read_bytes().endswith(mark):
        return f"pdf     {pdf} is of this page"
    engine = next((name for name in ENGINES if shutil.which(name)), None)
    if engine is None:
        earlier = f"; {pdf} is of an earlier page" if pdf.is_file() else ""
        return f"pdf     not made, none of {', '.join(ENGINES)} is installed{earlier}"
    env = os.environ | {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1", "TZ": "UTC"}
    with tempfile.TemporaryDirectory() as folder:
        runs, flags = RUNS, ["-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape",
                             f"-output-directory={folder}"]
        if engine == "tectonic":
            runs, flags = 1, ["--outdir", folder]
        for _ in range(runs):
            done = subprocess.run([engine, *flags, tex.name], cwd=at, env=env, capture_output=True, timeout=600)
            if done.returncode:
                said = (done.stdout + done.stderr).decode(errors="replace").splitlines()
                reason = next((line for line in said if line.startswith("!")), "no reason given")
                raise UserError(f"report.tex: {engine} stopped: {reason}")
        (at / "report.pdf").write_bytes((Path(folder) / "report.pdf").read_bytes() + mark)
    return f"pdf     {pdf}, by {engine}"
