"""The licence of a checkpoint, as an SPDX expression: what its README says, or what is known of where it is from.

The hub names licences in a list of its own (https://huggingface.co/docs/hub/repositories-licenses), most of them SPDX
identifiers in lower case; the others are LicenseRefs here, for SPDX has no name for them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .models import MODELS, Info
from .models.source import Source

UNKNOWN = "NOASSERTION"

_IDENTIFIERS = """
    AFL-3.0 AGPL-3.0-only AGPL-3.0-or-later Apache-2.0 Artistic-2.0 BSD-2-Clause BSD-3-Clause BSD-3-Clause-Clear
    BSL-1.0 C-UDA-1.0 CC-BY-2.0 CC-BY-2.5 CC-BY-3.0 CC-BY-4.0 CC-BY-NC-2.0 CC-BY-NC-3.0 CC-BY-NC-4.0 CC-BY-NC-ND-3.0
    CC-BY-NC-ND-4.0 CC-BY-NC-SA-2.0 CC-BY-NC-SA-3.0 CC-BY-NC-SA-4.0 CC-BY-ND-4.0 CC-BY-SA-3.0 CC-BY-SA-4.0 CC0-1.0
    CDLA-Permissive-1.0 CDLA-Permissive-2.0 CDLA-Sharing-1.0 ECL-2.0 EPL-1.0 EPL-2.0 EUPL-1.1 EUPL-1.2
    GFDL-1.3-only GFDL-1.3-or-later GPL-2.0-only GPL-2.0-or-later GPL-3.0-only GPL-3.0-or-later ISC LGPL-2.1-only
    LGPL-2.1-or-later LGPL-3.0-only LGPL-3.0-or-later LPPL-1.3c MIT MPL-2.0 MS-PL NCSA ODC-By-1.0 ODbL-1.0 OFL-1.1
    OSL-3.0 PDDL-1.0 PostgreSQL Unlicense WTFPL Zlib
"""
SPDX = tuple(_IDENTIFIERS.split())
# The hub's names that are not SPDX's in lower case. Of the GNU licences SPDX says that a bare version means "only".
_OTHER_NAMES = {
    **{f"{name}-{version}": f"{name.upper()}-{version}-only" for name, version in
       (("gpl", "2.0"), ("gpl", "3.0"), ("lgpl", "2.1"), ("lgpl", "3.0"), ("agpl", "3.0"))},
    **{"gfdl": "GFDL-1.3-or-later", "odbl": "ODbL-1.0", "pddl": "PDDL-1.0", "c-uda": "C-UDA-1.0"},
}  # fmt: skip
_KNOWN = {name.lower(): name for name in SPDX} | _OTHER_NAMES
_NOT_SAID = ("", "unknown", "other", "none")


def licence_of(source: Source, info: Info) -> str:
    """A checkpoint's licence: its README's, or that of the official one where it is that, or seeded in its form."""
    if found := _read(source.readme) if source.readme else None:
        return found
    official = re.split("[#@]", source.source)[0] == MODELS[info.name].checkpoint
    return info.licence if official or source.seed is not None else UNKNOWN


def front_matter(readme: Path) -> dict[str, Any]:
    """What a README says ahead of its text; nothing where it says nothing that can be read."""
    try:
        from huggingface_hub import metadata_load

        return metadata_load(readme) or {}
    except Exception:  # of YAML, of bytes that are no text; and the hub's own, where HF_ENDPOINT is no address
        return {}


def _read(readme: Path) -> str | None:
    said = front_matter(readme)
    if "license" not in said:
        return None
    given = said["license"] if isinstance(said["license"], list) else [said["license"]]
    names = sorted({spdx(name, said.get("license_name")) for name in given})
    return UNKNOWN if UNKNOWN in names or not names else " AND ".join(names)


def spdx(name: Any, own_name: Any = None) -> str:
    """SPDX's identifier of a licence that the hub names so. own_name: what its authors call one that the hub has no
    name for."""
    wanted = str(name).strip().lower() if isinstance(name, str) else ""
    if wanted in _KNOWN:
        return _KNOWN[wanted]
    if wanted in _NOT_SAID:
        wanted = str(own_name).strip() if wanted == "other" and isinstance(own_name, str) else ""
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", wanted).strip("-")
    return f"LicenseRef-{plain}" if plain else UNKNOWN


def hub_licence(expression: str) -> dict[str, Any]:
    """The same for the front matter of a README on the hub, which knows names for most."""
    names = expression.split(" AND ")
    hub_names = sorted({_hub_name(name) for name in names})
    own = ", ".join(name.removeprefix("LicenseRef-") for name in names if name.startswith("LicenseRef-"))
    known = {"license": hub_names[0] if len(hub_names) == 1 else hub_names}
    return {**known, "license_name": own} if own else known


def _hub_name(name: str) -> str:
    if name == UNKNOWN:
        return "unknown"
    plain = name.removesuffix("-only").removesuffix("-or-later").lower()
    return {"gfdl-1.3": "gfdl", "odbl-1.0": "odbl", "pddl-1.0": "pddl", "c-uda-1.0": "c-uda"}.get(
        plain, plain if name in SPDX else "other"
    )
