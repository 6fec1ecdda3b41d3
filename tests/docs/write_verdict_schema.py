"""Write docs/verdict.schema.json from the models: `python -m tests.docs.write_verdict_schema`."""

import json
from pathlib import Path

from launcher.runs.verdict import Verdict

PATH = Path(__file__).parent.parent.parent / "docs" / "verdict.schema.json"

if __name__ == "__main__":
    PATH.write_text(json.dumps(Verdict.model_json_schema(), indent=2, sort_keys=True) + "\n")
