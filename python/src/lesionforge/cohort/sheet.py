"""From the bytes of a samplesheet to rows: CSV or TSV, with or without byte-order mark, any line ends."""

from __future__ import annotations

import csv
import io

from lesionforge.cohort.rows import OPTIONAL_COLUMNS, REQUIRED_COLUMNS, Problem, Row


def parse_sheet(content: bytes, required: tuple[str, ...] = REQUIRED_COLUMNS) -> tuple[list[Row], list[Problem]]:
    """Read the rows of a sheet; cells are stripped of white space, blank lines skipped, nothing else is judged.

    The header line decides between tabs and commas. `required` names the columns that must be there; a cell of a required
    column that is missing, or of a column that is there twice, is None in every row. Returns (rows, problems).
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return [], [Problem("is not UTF-8 text; save the sheet as CSV (UTF-8) or as TSV")]
    if "\0" in text:
        return [], [Problem("is not text but a binary file; save the sheet as CSV (UTF-8) or as TSV")]
    lines, problems = split_cells(text)
    if not lines:
        return [], problems or [Problem("is empty; write a header line and one row for each scan")]
    (header_line, header), body = lines[0], lines[1:]
    header_problems = judge_header(header_line, header, required)
    problems += header_problems
    unsure = {column: None for column in required if column not in header}
    unsure |= {column: None for column in REQUIRED_COLUMNS + OPTIONAL_COLUMNS if header.count(column) > 1}
    known = [column if column in REQUIRED_COLUMNS + OPTIONAL_COLUMNS else None for column in header]
    rows = []
    for line, cells in body:
        if len(cells) != len(header) and (len(cells) < len(header) or any(cells[len(header) :])):
            problems.append(
                Problem(
                    f"has {len(cells)} cells, but the header has {len(header)}; separate all cells, the empty ones too, "
                    "and quote a cell that holds the separator",
                    line,
                )
            )
            continue
        named = {column: cell for column, cell in zip(known, cells, strict=False) if column is not None}
        rows.append(Row(line, **(named | unsure)))  # type: ignore[arg-type]
    if not body and not problems:
        problems.append(Problem("has a header but no rows; write one row for each scan"))
    return rows, problems


def split_cells(text: str) -> tuple[list[tuple[int, list[str]]], list[Problem]]:
    """The lines of a sheet that are not blank: (line number from 1, stripped cells); stops at a broken quotation."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter="\t" if "\t" in first else ",", skipinitialspace=True, strict=True
    )
    lines: list[tuple[int, list[str]]] = []
    start = 1
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                lines.append((start, stripped))
            start = reader.line_num + 1
    except csv.Error as error:
        return lines, [Problem(f"cannot be split into cells ({error}); check the quotation marks from this row on", start)]
    return lines, []


def judge_header(line: int, header: list[str], required: tuple[str, ...]) -> list[Problem]:
    """Problems of the column names: missing, unknown (a typo would lose an optional column silently) or given twice."""
    known = REQUIRED_COLUMNS + OPTIONAL_COLUMNS
    if len(header) == 1:
        return [Problem(f"has only one column ({header[0]!r}); separate the columns with commas or tabs", line)]
    problems = [Problem("is missing; add this column to the header", line, name) for name in required if name not in header]
    for number, name in enumerate(header, start=1):
        if not name:
            problems.append(Problem("has no name; name it or remove it", line, str(number)))
        elif name not in known:
            problems.append(Problem(f"is unknown; remove it or correct its name to one of {', '.join(known)}", line, name))
        elif name in header[: number - 1]:
            problems.append(Problem("is there twice; keep one", line, name))
    return problems
