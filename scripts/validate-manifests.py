"""Validates Kubernetes manifests, strictly: what is not known is an error.

    validate-manifests.py --kubernetes VERSION… [--crds FOLDER] [--skip-newer] [--rules FOLDER] FILE…

Against the schemas of the package kubernetes-validate, whose own command passes unknown kinds with a warning, and, for
the resources of Prometheus' operator, against their resource definitions. Beyond the schemas: no key twice, no null
(a template that left something empty), no object twice in one file, at least one object in each file.

--skip-newer leaves out kinds that a version does not have yet: for manifests that are the same for all versions.
--rules writes each PrometheusRule as a rules file, for promtool.

Exit code: 0 no finding, 1 findings, 2 could not validate.
"""

import argparse
import json
import pathlib
import re
import sys

import kubernetes_validate
import referencing
import yaml
from jsonschema import Draft202012Validator

SCHEMAS = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"

# Kinds that charts use, and the version that brought them: only these may be skipped.
SINCE = {
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"): (1, 30),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"): (1, 30),
}


class Loader(yaml.SafeLoader):
    """SafeLoader keeps the last of two equal keys; Kubernetes refuses them, and so does this."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class Schemas:
    """The validators of one version of Kubernetes, by apiVersion and kind."""

    def __init__(self, version, crds):
        folder = SCHEMAS / f"v{version}.0-local-strict"
        if not folder.is_dir():
            sys.exit(f"validate-manifests.py: no schemas for Kubernetes {version}")
        self.folder, self.version, self.crds, self.validators = folder, version, crds, {}
        definitions = json.loads((folder / "_definitions.json").read_text())
        self.registry = referencing.Resource.from_contents(definitions) @ referencing.Registry()

    def validator(self, api_version, kind):
        """None: this version does not have the kind."""
        if (api_version, kind) not in self.validators:
            schema = self.crds.get((api_version, kind)) or self.read(api_version, kind)
            self.validators[api_version, kind] = schema and Draft202012Validator(schema, registry=self.registry)
        return self.validators[api_version, kind]

    def read(self, api_version, kind):
        # "rbac.authorization.k8s.io/v1" and Role: role-rbac-v1.json
        group = re.sub(r"^([^./]*)(?:[.][^/]*)?/", r"\1-", api_version)
        file = self.folder / f"{kind.lower()}-{group}.json"
        if not file.is_file():
            return None
        schema = json.loads(file.read_text())
        # Groups are shortened in the names of the files: example.org/v1 must not pass as example.com/v1.
        known = schema["properties"].get("apiVersion", {}).get("enum", [api_version])
        return schema if api_version in known else None


def crds(folder):
    """The schemas of custom resources, closed: no field that is not in them."""
    schemas = {}
    for file in sorted(folder.glob("*.yaml")) if folder else []:
        spec = yaml.safe_load(file.read_text())["spec"]
        for version in spec["versions"]:
            schema = closed(version["schema"]["openAPIV3Schema"])
            # Open in the definition, as the API server looks after it; `labels` and the rest are checked below.
            schema["properties"]["metadata"] = {
                "type": "object",
                "additionalProperties": False,
                "required": ["name"],
                "properties": {
                    "name": {"type": "string"},
                    "namespace": {"type": "string"},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
                },
            }
            schemas[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return schemas


def closed(schema):
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if "properties" in schema and isinstance(schema.get("type"), str):
        schema.setdefault("additionalProperties", False)
    return schema


def nulls(value, path=()):
    if value is None:
        yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from nulls(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from nulls(item, (*path, index))


def dotted(path):
    return ".".join(str(part) for part in path) or "(top)"


def findings_in(document, schemas, skip_newer):
    api_version, kind = document["apiVersion"], document["kind"]
    since = SINCE.get((api_version, kind))
    if skip_newer and since and tuple(map(int, schemas.version.split("."))) < since:
        return
    validator = schemas.validator(api_version, kind)
    if validator is None:
        yield f"Kubernetes {schemas.version} has no {kind} in {api_version}"
        return
    for error in validator.iter_errors(document):
        yield f"Kubernetes {schemas.version}: {dotted(error.absolute_path)}: {error.message}"


def load(file):
    """The documents of a file and the findings of loading it."""
    try:
        documents = [item for item in yaml.load_all(file.read_text(), Loader=Loader) if item is not None]
    except yaml.YAMLError as error:
        return [], [f"{file}: {error}"]
    findings, names = [], set()
    if not documents:
        findings.append(f"{file}: holds no object")
    for document in documents:
        if not isinstance(document, dict) or not {"apiVersion", "kind", "metadata"} <= document.keys():
            findings.append(f"{file}: not a Kubernetes object: {str(document)[:80]}")
            continue
        metadata = document["metadata"] or {}
        name = (document["apiVersion"], document["kind"], metadata.get("namespace"), metadata.get("name"))
        if not name[3]:
            findings.append(f"{file}: a {document['kind']} without a name")
        if name in names:
            findings.append(f"{file}: {document['kind']}/{name[3]} is there twice")
        names.add(name)
    return ([] if findings else documents), findings


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kubernetes", action="append", required=True)
    parser.add_argument("--crds", type=pathlib.Path)
    parser.add_argument("--skip-newer", action="store_true")
    parser.add_argument("--rules", type=pathlib.Path)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    options = parser.parse_args()

    known = crds(options.crds)
    versions = [Schemas(version, known) for version in options.kubernetes]
    findings, objects = [], 0
    for file in options.files:
        documents, found = load(file)
        findings += found
        for number, document in enumerate(documents):
            objects += 1
            label = f"{file}: {document['kind']}/{document['metadata'].get('name')}"
            findings += [f"{label}: {dotted(path)}: null" for path in nulls(document)]
            for schemas in versions:
                findings += [f"{label}: {finding}" for finding in findings_in(document, schemas, options.skip_newer)]
            if options.rules and document["kind"] == "PrometheusRule":
                name = "-".join([*file.with_suffix("").parts[-2:], str(number)])
                (options.rules / f"{name}.yaml").write_text(yaml.safe_dump({"groups": document["spec"]["groups"]}))
    for finding in findings:
        print(finding, file=sys.stderr)
    if not findings:
        print(f"{objects} objects, each valid in Kubernetes {', '.join(options.kubernetes)}")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
