"""The YAML header of a dataset card: what the Hub and `datasets` read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from selfplay.exporting.figures import Figures

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10**7, "1M<n<10M"))
LICENSES = (
    "afl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "c-uda", "cc",
    "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0",
    "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0",
    "gemma", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "llama2", "llama3", "llama3.1", "llama3.2",
    "llama3.3", "mit", "mpl-2.0", "odbl", "odc-by", "openrail", "pddl", "unlicense", "wtfpl", "zlib", "agpl-3.0",
)  # fmt: skip
"""Those that the Hub's header knows, as far as data and models are likely to name them."""


def header(
    rows: Mapping[str, Mapping[str, int]], suffix: str, found: Figures, source_license: str | None
) -> str:  # fmt: skip
    """Licence, configurations, size and tags, between lines of dashes.

    The licence is the one that all conversations have: `unknown` if none is known, `other` if there are several, or
    one that the Hub does not know.

    Args:
        rows: By format and split, as they were written to `data/<format>/<split>.<suffix>`.
        source_license: Of conversations whose rows name none.
    """
    from huggingface_hub import DatasetCardData

    licenses = _licenses(found, source_license)

    configs: list[dict[str, Any]] = [
        {
            "config_name": name,
            "data_files": [{"split": split, "path": f"data/{name}/{split}.{suffix}"} for split in counts],
        }
        for name, counts in rows.items()
        if counts
    ]
    configs[0]["default"] = True
    most = max(sum(counts.values()) for counts in rows.values())
    named = [name for name in licenses if name is not None]
    told: dict[str, Any] = {"license": "unknown"}
    if named:
        told = {"license": "other"}
        if len(licenses) == 1:
            slug = named[0].lower().replace(" ", "-")
            told = {"license": slug} if slug in LICENSES else {"license": "other", "license_name": _slug(named[0])}
    data = DatasetCardData(
        **told,
        task_categories=["text-generation"],
        tags=["user-simulation", "synthetic", "selfplay"],
        size_categories=[next((name for bound, name in SIZES if most < bound), "n>10M")],
        configs=configs,
    )
    return f"---\n{data.to_yaml()}\n---"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-.")[:60] or "other"


def _licenses(found: Figures, source_license: str | None) -> dict[str | None, int]:
    """Conversations by licence, most common first."""
    told: dict[str | None, int] = {}
    for (_, name), count in found.origins.most_common():
        known = name if name is not None else source_license
        told[known] = told.get(known, 0) + count
    return told
