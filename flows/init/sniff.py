"""How a file is written, by its beginning: format, encoding, separator, header. What is usual is left unsaid."""

from __future__ import annotations

import csv
import re
from collections import Counter

from preprocessing.source.files import CSV, JSON, PARQUET, UNREAD, format_of
from preprocessing.source.listing import SourceFile
from preprocessing.source.text import TextFile
from schemas.dataset import FileOptions
from schemas.errors import InputError

START = 1 << 23  # bytes that decide the encoding
LINES = 200  # that decide the separator
SEPARATORS = (",", ";", "\t", "|", "::", "\x01", " ")
VALUE = re.compile(r"-?\d+([.,:\-T/ ]\d+)*(Z|[+-]\d\d:?\d\d)?")


def sniff(file: SourceFile) -> tuple[FileOptions, dict[str, str]]:
    """How to read a file, and for each option that is not the usual one why it is set.

    Raises:
        InputError: for a file of one column, or of none.
    """
    options: dict[str, object] = {}
    notes: dict[str, str] = {}
    if file.path.lower().endswith(UNREAD):
        raise InputError(
            f"--from {file.url}: is packed in a way that is not read: unpack it, or use gzip, zstd or bzip2."
        )
    kind = format_of(file)
    start = b"" if kind == PARQUET else _start(file)
    if not kind:
        kind = PARQUET if start[:4] == b"PAR1" else JSON if start.lstrip()[:1] in (b"{", b"[") else CSV
        options["format"] = {PARQUET: "parquet", JSON: "json", CSV: "csv"}[kind]
        notes["format"] = f"{file.path} does not end like {kind}, but begins like it"
    if kind == PARQUET:
        return FileOptions.model_validate(options), notes
    encoding = _encoding(start)
    if encoding != "utf-8":
        options["encoding"] = encoding
        notes["encoding"] = "it is not UTF-8; if letters look wrong, try another, such as latin-1, utf-16 or shift_jis"
    if kind == CSV:
        _sniff_fields(file, start.decode(encoding, "replace"), options, notes)
    return FileOptions.model_validate(options), notes


def _start(file: SourceFile) -> bytes:
    with TextFile(file, FileOptions()) as text:
        start = b""
        while len(start) < START and (block := text.read(START)):
            start += block
    return start[:START]


def _encoding(start: bytes) -> str:
    """UTF-8 (also for what its mark says), a Chinese one where high bytes come in pairs, else that of Western Windows."""
    cut = max(start.rfind(b"\n") + 1, 0) or len(start)  # not in the middle of a letter
    try:
        start[:cut].decode()
        return "utf-8"
    except UnicodeDecodeError:
        runs = re.findall(rb"[\x80-\xff]+", start)
    pairs = sum(len(run) for run in runs if len(run) % 2 == 0)
    if pairs > 0.8 * sum(map(len, runs)):
        try:
            start[:cut].decode("gb18030")
            return "gb18030"
        except UnicodeDecodeError:
            pass
    return "windows-1252" if not re.search(rb"[\x81\x8d\x8f\x90\x9d]", start) else "latin-1"


def _sniff_fields(file: SourceFile, text: str, options: dict[str, object], notes: dict[str, str]) -> None:
    lines = [line for line in text.splitlines()[: LINES + 1] if line.strip()]
    lines = lines[:-1] if len(lines) > LINES else lines
    if not lines:
        raise InputError(f"--from {file.url}: there is nothing in it.")
    separator, fields = _separator(lines)
    if fields < 2:
        raise InputError(
            f"--from {file.url}: its lines have one field, whatever separates them; the first is {lines[0][:120]!r}. "
            "Fields between , ; | or tabs are read, an object of JSON a line, and Parquet."
        )
    if separator != ("\t" if ".tsv" in file.path.lower() else ","):
        options["separator"] = separator
        notes["separator"] = f"it cuts every line into {fields} fields"
    if any(VALUE.fullmatch(field.strip().strip('"')) for field in _cut(lines[:1], separator)[0]):
        options["header"] = False
        notes["header"] = "the first line is a row, so columns go by their place, from column_1 on"


def _separator(lines: list[str]) -> tuple[str, int]:
    """What cuts most lines into the same number of fields, the more the better."""
    best = (0.0, 1, ",")
    for separator in SEPARATORS:
        counts = Counter(len(fields) for fields in _cut(lines, separator))
        fields, often = counts.most_common(1)[0]
        share = often / sum(counts.values())
        if fields > 1 and share > 0.9 and (len(_cut(lines[:1], separator)[0]) == fields):
            best = max(best, (round(share, 1), fields, separator), key=lambda found: found[:2])
    return best[2], best[1]


def _cut(lines: list[str], separator: str) -> list[list[str]]:
    if len(separator) > 1:
        return [line.split(separator) for line in lines]
    return [fields for fields in csv.reader(lines, delimiter=separator) if fields]
