"""Documentation page of the flags."""

from deeplegato_pp.flags.flag import Flag


def flags_markdown() -> str:
    """Returns the text of ``docs/flags.md``."""
    lines = [
        "# Flags and quality",
        "",
        "`flags` is the sum of the bits below; `Flag.names(value)` lists their names and "
        "`Flag.describe(value)` explains them. A flag is not an error: it states an assumption or "
        "a limitation of the result. This page is written by "
        "`deeplegato_pp.flags.flags_markdown()`.",
        "",
        '**`quality`** is the worst level (column "quality") of the flags that are set: `bad` '
        "(do not use the numbers), `caution` (use them with the flags in mind), `good` if there is "
        "neither. The numbers of a refined galaxy come from the likelihood: `unfamiliar` then "
        "counts as `caution`, and `outside_training` as `good`. [Verdict](verdict.md) describes "
        "how the verdict was tested.",
        "",
        "| bit | value | name | meaning | how it is decided | quality | what to do |",
        "|---|---|---|---|---|---|---|",
    ]
    for flag in Flag:
        bit = int(flag).bit_length() - 1
        name = str(flag.name).lower()
        lines.append(
            f"| {bit} | {int(flag)} | `{name}` | {flag.meaning} | {flag.decision} | {flag.level} | "
            f"{flag.remedy} |"
        )
    return "\n".join(lines) + "\n"
