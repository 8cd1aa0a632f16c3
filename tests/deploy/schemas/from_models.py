"""Makes podmonitor-v0.80.json and prometheusrule-v0.80.json anew from the CRDs of the Prometheus operator.

    pip install --target /tmp/models cloudcoil.models.prometheus_operator==0.80.1.0
    PYTHONPATH=/tmp/models python tests/deploy/schemas/from_models.py

That package's models are generated from the CRDs and keep their fields, types, patterns and limits. Left out here:
descriptions and defaults, and the null that a model's optional field takes, which is not in the CRD. Added: that a
field the CRD does not have is a fault, as `kubectl apply --validate=strict` says. Metadata is Kubernetes' own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

KINDS = {"PodMonitor": "podmonitor-v0.80.json", "PrometheusRule": "prometheusrule-v0.80.json"}
_METADATA = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_NOISE = ("title", "description", "default")


def strict(schema: Any) -> Any:
    """A part of a schema, as said above."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    options = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(options) == 1:
        return strict(options[0])
    kept: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            kept[key] = {name: strict(each) for name, each in value.items()}
        elif key not in (*_NOISE, "anyOf"):
            kept[key] = strict(value)
    if options:
        kept["anyOf"] = strict(options)
    if kept.get("type") == "object" and "properties" in kept:
        kept["additionalProperties"] = False
    return kept


def whole(model: Any) -> dict[str, Any]:
    """The schema of one kind: what one applies has all of its type and metadata, and no status."""
    made = strict(model.model_json_schema(by_alias=True))
    made["properties"].pop("status", None)
    made["properties"]["metadata"] = {"$ref": f"kubernetes-1.34.json#/$defs/{_METADATA}"}
    for name in ("ObjectMeta", "OwnerReference", "ManagedFieldsEntry", "FieldsV1", "Time"):
        made["$defs"].pop(name)
    made["required"] = sorted({*made.get("required", ()), "apiVersion", "kind", "metadata"})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def main() -> None:
    """Write both files."""
    from cloudcoil.models.prometheus_operator import v1

    for kind, file in KINDS.items():
        text = json.dumps(whole(getattr(v1, kind)), indent=1) + "\n"
        (Path(__file__).parent / file).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
