"""Names of the arithmetic in which networks run."""

from typing import Literal, TypeAlias

Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]
"""Name of an arithmetic; "auto" is bfloat16 where hardware has it, else float32."""
