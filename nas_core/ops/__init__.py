"""Operations that spaces are built from, the mixed operation, their weights, and what they cost."""
