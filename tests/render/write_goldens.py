"""Generates the chart's schema, README, ci values and goldens: `python -m tests.render.write_goldens`.

values.schema.json, README.md and ci/*-values.yaml in charts/run, and the golden renderings beside this
file. The tests hold all of them equal to what is written here: read the difference before committing it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE)]

from chart_readme import readme  # noqa: E402
from render_scenarios import SCENARIOS, golden, rendered  # noqa: E402

from launcher.manifests.chart_values import chart_directory, schema  # noqa: E402


def written() -> dict[Path, str]:
    """Every made file and its content; the schema comes first, for rendering reads it."""
    chart = chart_directory()
    files = {
        chart / "values.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
        chart / "README.md": readme(),
    }
    for name in SCENARIOS:
        one = rendered(name)
        files[HERE / "goldens" / f"{name}.yaml"] = golden(one)
        values = json.dumps(one.values, indent=2, ensure_ascii=False)
        files[chart / "ci" / f"{name}-values.yaml"] = values + "\n"
    return files


def main() -> int:
    schema_file = chart_directory() / "values.schema.json"
    schema_file.write_text(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for path, text in written().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
