"""Names that old functions import to tell Python 2 from 3."""

from __future__ import annotations

PYTHON2 = False
PYTHON3 = True
