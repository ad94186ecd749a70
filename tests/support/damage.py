from hypothesis import strategies as st

#: Where and how bytes are changed (as fractions of their length), and how much of them is left.
damage = st.tuples(
    st.lists(st.tuples(st.floats(0, 0.9999), st.integers(1, 255)), max_size=4),
    st.one_of(st.just(1.0), st.floats(0, 1)),
)


def damaged(whole: bytes, harm: tuple[list[tuple[float, int]], float]) -> bytes:
    """The bytes after what `damage` drew."""
    out = bytearray(whole)
    changes, left = harm
    for where, change in changes:
        out[int(where * len(out))] ^= change
    return bytes(out[: int(left * len(out))])
