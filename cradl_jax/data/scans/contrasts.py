"""Contrasts of scans, and the one that the name of a file states."""

import re

T2W, T1W, FLAIR, PDW = "T2w", "T1w", "FLAIR", "PDw"
CONTRASTS = (T2W, T1W, FLAIR, PDW)
"""Suffixes of BIDS."""
ENHANCED = "contrast-enhanced T1w"
"""What never counts as T1w."""
ENDINGS = {
    **{"t2": T2W, "t2w": T2W, "t1": T1W, "t1w": T1W, "t1n": T1W, "flair": FLAIR, "t2f": FLAIR},
    **{"pd": PDW, "pdw": PDW, "t1ce": ENHANCED, "t1c": ENHANCED, "t1gd": ENHANCED},
}
"""Ends of names in BIDS, BraTS and elsewhere, in lower case."""
SHORT = {"t1", "t2", "pd"}
"""Those that within a name may mean a time point or a disease."""


def stated(name: str) -> str | None:
    """Return the contrast that the name of a file, without its ending, states; None if none.

    It is said at the end, as in `sub-1_T1w`, `case_t1`, `case-t1n` and `MR_T1.70616`, or by a part
    as clear as in `T1w_acpc_dc_restore_brain`.
    """
    parts = re.sub(r"\.\d+$", "", name).lower().split("_")
    end = re.split(r"[-. ]", parts[-1])[-1]
    said = [end] if end in ENDINGS else [part for part in parts if part not in SHORT]
    found = {ENDINGS[part] for part in said if part in ENDINGS}
    if found == {T1W} and any(part.startswith("ce-") for part in parts):
        return ENHANCED
    return found.pop() if len(found) == 1 else None
