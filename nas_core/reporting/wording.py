"""How numbers, names and commands are written in figures, page and terminal."""

import shlex


def percent(share: int | float | None) -> str:
    """A share in [0, 1] with one decimal, such as "91.2%"; a dash for None."""
    return "-" if share is None else f"{share:.1%}"


def amount(number: int | float | None) -> str:
    """A count with three digits and its unit, such as "12.3 M"; a dash for None."""
    if number is None:
        return "-"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # Compared after rounding, so that 999,999 is "1 M" and not "1e+03 k".
        if float(f"{number:.3g}") >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"


def duration(seconds: int | float) -> str:
    """A time in its two largest units, such as "1 h 2 min", "12 min 4 s" or "3.5 s"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def milliseconds(number: int | float | None) -> str:
    """A latency with three digits, such as "0.523 ms" or "1.2 s"; a dash for None."""
    if number is None:
        return "-"
    return f"{number:.3g} ms" if number < 999.5 else f"{number / 1e3:.3g} s"


def shortened(name: str, longest: int = 14) -> str:
    """A name of at most `longest` characters, the rest replaced by an ellipsis."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def spread(count: int, most: int) -> list[int]:
    """At most `most` indices of `range(count)`, evenly spaced, the first and the last included; `most` >= 2."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def command(*words: object) -> str:
    """A command of dfnas to be copied, such as "`dfnas repair 'my runs/one'`", with whatever a shell needs quoted."""
    return f"`dfnas {shlex.join(map(str, words))}`"


def byte_size(size: int | float) -> str:
    """A size in bytes with its binary unit, such as "1.4 GiB"."""
    for limit, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= limit:
            return f"{size / limit:.1f} {unit}"
    return f"{size:.0f} bytes"
