"""Copies of the C core with one line made wrong: a test that does not notice proves nothing."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.support.c_program import CORE

# name: (file, what stands there as a regular expression, what stands there then)
MUTANTS = {
    "no-second-look": ("channel.c", r"(int ring_sleep\(.*?)if \(!has_record\(ring\)\)\s*return 1;", r"\1return 1;"),
    "no-producer-fence": ("channel.c", r"(ring_publish\(.*?)atomic_thread_fence\(memory_order_seq_cst\);", r"\1"),
    "no-consumer-fence": ("channel.c", r"(int ring_sleep\(.*?)atomic_thread_fence\(memory_order_seq_cst\);", r"\1"),
    "tail-relaxed": ("channel.c", r"(ring_publish\(.*?->tail, ring->own, memory_order_)release", r"\1relaxed"),
    "head-relaxed": ("channel.c", r"(void ring_release\(.*?->head, ring->own, memory_order_)release", r"\1relaxed"),
    "tail-not-acquired": ("channel.c", r"(int has_record\(.*?->tail, memory_order_)acquire", r"\1relaxed"),
    "head-not-acquired": ("channel.c", r"(refresh_head\(.*?->head, memory_order_)acquire", r"\1relaxed"),
    "size-unchecked": ("channel.c", r"\|\| size > used \|\| size > ring->size - index\)", r")"),
    "body-unchecked": ("record.c", r"(int record_parts\(.*)else if \(!in_record.*?return 0;", r"\1"),
    "texts-unchecked": (
        "record.c",
        r"(int record_event_head\(.*?)text_end < previous \|\| .*?\)\)",
        r"\1text_end == 1)",
    ),
}


def mutant(name: str, folder: Path) -> Path:
    """A folder with the changed core. AssertionError when the line is not there: the list above is out of date."""
    file, there, then = MUTANTS[name]
    for path in CORE.glob("*.[ch]"):
        shutil.copy(path, folder)
    text, count = re.subn(there, then, (CORE / file).read_text(), count=1, flags=re.DOTALL)
    assert count == 1, f"{file} has nothing that looks like {there}"
    (folder / file).write_text(text)
    return folder
