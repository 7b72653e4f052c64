"""extract_openai_schemas.py openapi.yaml > tests/data/server/openai_schemas.json -- the schemas of the responses that chorus serve gives, and all
that they refer to, from github.com/openai/openai-openapi (MIT), without descriptions. Needs PyYAML."""
import json
import sys

import yaml

WANTED = ["CreateCompletionResponse", "CreateChatCompletionResponse", "CreateChatCompletionStreamResponse", "ListModelsResponse", "Model", "ErrorResponse"]
PREFIX = "#/components/schemas/"


def without_words(node):
    """And with "nullable", a word of OpenAPI 3.0 that the file still has, as JSON Schema says it."""
    if isinstance(node, dict) and node.get("nullable") is True:
        return {"anyOf": [without_words({key: value for key, value in node.items() if key != "nullable"}), {"type": "null"}]}
    if isinstance(node, dict):
        return {key: without_words(value) for key, value in node.items()
                if not (key.startswith("x-") or (key in ("description", "title", "example", "examples") and not isinstance(value, dict)))}
    return [without_words(value) for value in node] if isinstance(node, list) else node


def references(node):
    if isinstance(node, dict):
        if str(node.get("$ref", "")).startswith(PREFIX):
            yield node["$ref"][len(PREFIX):]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        schemas = yaml.load(file, Loader=yaml.CSafeLoader)["components"]["schemas"]
    found, waiting = {}, list(WANTED)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = without_words(schemas[name])
            waiting += references(found[name])
    json.dump({"components": {"schemas": dict(sorted(found.items()))}}, sys.stdout, indent=1)
    print()


main()
