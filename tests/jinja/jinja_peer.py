#!/usr/bin/env python3
"""Peer: what Python's jinja2 makes of templates, in the environment that transformers gives chat templates.

  jinja_peer.py ITEMS.json    a list of {"template", "variables"}. For each a line: {"text": ...} or {"error": "TYPE: MESSAGE"}.

The clock of strftime_now stands at the second 1700000000.
"""
import datetime, json, sys
import jinja2, jinja2.ext, jinja2.sandbox


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


class Namespace(jinja2.utils.Namespace):
    def __init__(*args, **kwargs):
        self, names = args[0], dict(*args[1:], **kwargs)
        for name in names: Namespace.check(name)
        jinja2.utils.Namespace.__init__(self, names)

    def __setitem__(self, name, value):
        Namespace.check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def check(name):
        if isinstance(name, str) and name.startswith("_"): raise jinja2.exceptions.SecurityError(name)


def refuse(message):
    raise jinja2.exceptions.TemplateError(message)


def to_json(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = to_json
    env.globals["namespace"] = Namespace
    env.globals["raise_exception"] = refuse
    env.globals["strftime_now"] = datetime.datetime.fromtimestamp(1700000000).strftime
    return env


def main():
    env, known = environment(), {}
    for item in json.load(open(sys.argv[1])):
        source = item["template"]
        try:
            if source not in known: known[source] = env.from_string(source)
            answer = {"text": known[source].render(**item["variables"])}
        except Exception as e: answer = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(answer))


if __name__ == "__main__":
    main()
