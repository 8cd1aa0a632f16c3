"""Makes grafana-12.4.json anew from Grafana's own types: `python tests/deploy/schemas/from_grafana.py`. Needs npm."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PACKAGES = ("@grafana/schema@12.4.0", "ts-json-schema-generator@2.3.0", "typescript@5.9.3")
CONFIG = {"compilerOptions": {"moduleResolution": "node", "skipLibCheck": True}, "files": ["board.ts"]}
_NOISE = ("description", "default")


def plain(schema: Any) -> Any:
    """Without descriptions and defaults; a property may have either name."""
    if isinstance(schema, list):
        return [plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    properties = {name: plain(each) for name, each in schema.get("properties", {}).items()}
    kept = {key: plain(each) for key, each in schema.items() if key not in (*_NOISE, "properties")}
    return {**kept, "properties": properties} if properties else kept


def main() -> None:
    """Install the packages into a folder that goes again, and write the schema."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(FOLDER / "board.ts", folder)
        Path(folder, "tsconfig.json").write_text(json.dumps(CONFIG))
        subprocess.run(["npm", "install", "--silent", "--ignore-scripts", *PACKAGES], cwd=folder, check=True)
        # Each plugin calls its types Options and FieldConfig, so that types cannot become definitions by name.
        options = ("--path", "board.ts", "--tsconfig", "tsconfig.json", "--type", "Board", "--expose", "none")
        command = ["npx", "ts-json-schema-generator", *options, "--no-type-check"]
        made = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    text = json.dumps(plain(json.loads(made)), indent=1, ensure_ascii=False) + "\n"
    (FOLDER / "grafana-12.4.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
