"""What processes cost, as the system accounts for it: processor time and memory, of a process and its descendants."""

from __future__ import annotations

import os
import re
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and its living descendants."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def cpu_s(pid: int) -> float:
    """Processor time so far, in user and system mode, of all threads, and of children also where they have ended."""
    return sum(_cpu_s(member) for member in family(pid))


def pss_kb(pid: int) -> float:
    """Memory, with what is shared counted in proportion."""
    return sum(_pss_kb(member) for member in family(pid))


def _cpu_s(pid: int) -> float:
    # After the name, which may hold anything, come the fields from the third on: utime is the 14th.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS_PER_S


def _pss_kb(pid: int) -> int:
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    return int(found[1]) if found else 0
