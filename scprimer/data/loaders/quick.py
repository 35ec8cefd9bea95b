"""A quicker way through rdata for files with many names.

rdata handles every string of an R file as an object of its own, through its general code: the 737,280 barcodes of one
data set take it twelve seconds. Here strings take a short way (under two seconds); all else is rdata's own work, and so is
any file that is not in R's usual binary form.
"""

from __future__ import annotations

import bz2
import contextlib
import gc
import gzip
import lzma
import struct
from typing import Any

import numpy as np
import pandas as pd
import rdata
from rdata.parser import CharFlags, RObject, RObjectType
from rdata.parser._parser import DEFAULT_ALTREP_MAP, parse_r_object_info
from rdata.parser._xdr import ParserXDR

_MAGIC = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ\x00": lzma.decompress}
_WORKSPACES = (b"RDX2\n", b"RDX3\n")  # .rda and .RData open with one of these, .rds with none
_XDR = b"X\n"
_HEAD = struct.Struct(">ii")  # of a string: flags and length
_PLAIN = 0x700  # flag bits of attributes, tag and class: strings have none
_KNOWN = CharFlags.ASCII.value | CharFlags.UTF8.value  # encodings that the short way decodes


def parse(data: bytes) -> rdata.parser.RData:
    """The bytes of an R file as rdata's tree of R objects.

    Raises:
        ValueError, EOFError, OSError, lzma.LZMAError: the bytes end early or are no R file.
    """
    for magic, decompress in _MAGIC.items():
        if data.startswith(magic):
            data = decompress(data)
    inner = data[5:] if data.startswith(_WORKSPACES) else data
    if not inner.startswith(_XDR):
        return rdata.parser.parse_data(data, extension=".rds")
    parser = _Parser(memoryview(inner)[2:], expand_altrep=True, altrep_constructor_dict=DEFAULT_ALTREP_MAP)
    with _no_garbage_collection():
        found = parser.parse_all()
    parser.check_complete()
    return found


def convert(parsed: rdata.parser.RData) -> Any:
    """The tree as Python objects, as ``rdata.conversion.convert`` gives them, but factors keep their names.

    A factor whose elements have names comes as a Series with the names as index; rdata drops them.
    """
    return _Converter({**rdata.conversion.DEFAULT_CLASS_MAP, "factor": _factor}).convert(parsed)


def _factor(codes: Any, attributes: dict) -> pd.Categorical | pd.Series:
    values = getattr(codes, "values", codes)  # rdata gives xarray where elements have names
    if np.ma.isMaskedArray(values):
        values = values.filled(0)
    # A missing label is masked, or NaN where xarray had to hold it; code 0 and below are missing too.
    whole = np.where(np.isnan(values.astype(float)), 0, values).astype(int)
    plain = pd.Categorical.from_codes(np.maximum(whole, 0) - 1, [str(v) for v in attributes["levels"]])
    names = attributes.get("names")
    return plain if names is None else pd.Series(plain, index=[str(n) for n in names])


@contextlib.contextmanager
def _no_garbage_collection():
    """Python looks for garbage again and again while objects pile up; here all of them stay, and looking takes half the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Parser(ParserXDR):
    """rdata's parser with a short way for strings."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._kinds = {}

    def parse_R_object(self, reference_list=None, bytecode_rep_list=None, info_int=None):
        if info_int is None:
            here = self.file.tell()
            head = self.file.read(_HEAD.size)
            if len(head) == _HEAD.size:
                flags, length = _HEAD.unpack(head)
                if flags & 0xFF == RObjectType.CHAR.value and not flags & _PLAIN and length >= -1:
                    if flags not in self._kinds:
                        self._kinds[flags] = parse_r_object_info(flags)
                    text = None if length < 0 else self.file.read(length)  # -1 stands for a missing string
                    if text is not None and len(text) < length:
                        raise EOFError("it ends within a string")
                    return RObject(
                        info=self._kinds[flags], value=text, attributes=None, tag=None, referenced_object=None
                    )
            self.file.seek(here)
        return super().parse_R_object(reference_list, bytecode_rep_list, info_int)


class _Converter(rdata.conversion.SimpleConverter):
    """rdata's converter with a short way for vectors of strings without names."""

    def _convert_next(self, obj):
        strings = isinstance(obj, RObject) and obj.info.type is RObjectType.STR and obj.attributes is None
        if strings and all(o.value is None or o.info.gp & _KNOWN for o in obj.value):
            return np.array([None if o.value is None else o.value.decode("utf-8") for o in obj.value])
        return super()._convert_next(obj)
