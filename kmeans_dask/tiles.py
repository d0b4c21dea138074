"""How rows lie in memory: in tiles (n_tiles, d4, 128), feature-major, so that the vector lanes are rows."""

TILE = 128


def padded(n_features: int) -> int:
    """Return d4, the number of features rounded up to 4."""
    return -(-n_features // 4) * 4
