"""Writes a number in every style that has one reading: what reads numbers is tested against it, and shares nothing."""

from fractions import Fraction

from hypothesis import strategies as st


def in_groups(digits: str, separator: str) -> str:
    """Groups of three from the right."""
    head = len(digits) % 3 or 3
    return separator.join([digits[:head], *(digits[at : at + 3] for at in range(head, len(digits), 3))])


def in_lakhs(digits: str) -> str:
    """The last three digits together, those before them in pairs."""
    front, last = digits[:-3], digits[-3:]
    pairs = [front[max(0, at - 2) : at] for at in range(len(front), 0, -2)]
    return ",".join([*reversed(pairs), last])


def written(number: Fraction) -> list[str]:
    """A number of three decimals at most in every style that has one reading."""
    assert (number * 1000).denominator == 1
    thousandths = abs(int(number * 1000))
    whole, decimals = str(thousandths // 1000), f"{thousandths % 1000:03}".rstrip("0")
    point, comma = (f"{mark}{decimals}" if decimals else "" for mark in ".,")
    styles = [whole + point, in_groups(whole, ",") + point, in_groups(whole, "'") + point, in_lakhs(whole) + point]
    styles += [in_groups(whole, blank) + point for blank in " \u00a0\u202f"]
    if decimals and (len(decimals) < 3 or whole == "0" or len(whole) > 3):
        styles.append(whole + comma)
    if decimals and len(whole) > 3:
        styles += [in_groups(whole, ".") + comma, in_groups(whole, "\u00a0") + comma]
    return [sign + style for style in styles for sign in (("-", "−", "minus ") if number < 0 else ("",))]


NUMBERS = st.builds(Fraction, st.integers(-(10**13), 10**13), st.sampled_from([1, 10, 100, 1000]))
POSITIVE = st.builds(Fraction, st.integers(1, 10**10), st.sampled_from([1, 10, 100, 1000]))
