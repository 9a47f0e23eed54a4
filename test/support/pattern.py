"""Test data that says where it belongs: sector N written with seed S is the text `seed S sector N`, filled up with spaces to 511
characters, and a newline."""

SECTOR = 512


def sectors(seed, first, count):
    return b"".join(f"seed {seed} sector {i}".ljust(511).encode() + b"\n" for i in range(first, first + count))
