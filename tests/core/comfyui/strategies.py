"""What hypothesis throws at everything that reads ComfyUI or its users."""

from hypothesis import strategies as st

#: Texts with NULs and lone halves of surrogate pairs, as JSON can carry them.
any_text = st.text(st.characters(exclude_categories=[]), max_size=64)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=20,
)
