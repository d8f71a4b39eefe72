def same(one, other):
    """Equal images, labels and usage in the same order."""
    return one.fingerprint == other.fingerprint and len(one) == len(other)
