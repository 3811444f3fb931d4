"""When labels are few: how quality grows with them, and which ones to ask for next."""

from __future__ import annotations
