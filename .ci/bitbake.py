"""bitbake.py CLASS FUNCTION [NAME=VALUE]...: prints the shell script that bitbake would run for a task that calls
FUNCTION: the shell functions of CLASS under the names that they override, with variables and Python expressions
expanded. Without FUNCTION ("") the script defines all and calls none. A FUNCTION in Python it runs. For tests of the class without bitbake."""
import re
import subprocess
import sys
import textwrap
import types

text = open(sys.argv[1]).read()
given = dict(pair.split("=", 1) for pair in sys.argv[3:])


class Data:
    """The datastore: what was given, then what the class assigns."""

    def __init__(self):
        self.values = {}
        for name, op, value in re.findall(r'^(?:export )?(\w+(?::forcevariable)?) (\?\?=|\?=|=) "((?:[^"\\]|\\.|\\\n)*)"$', text, re.M):
            self.values[name.removesuffix(":forcevariable")] = value
        self.values.update(given)

    def getVar(self, name, expand=True):
        value = self.values.get(name)
        return self.expand(value) if expand and value is not None else value

    def expand(self, value):
        """Variables that nobody has set stay as they are, for the shell."""
        def one(match):
            got = self.getVar(match.group(1))
            return match.group(0) if got is None else got
        value = re.sub(r"\$\{([a-zA-Z0-9_+./~:-]+)\}", one, value)
        return re.sub(r"\$\{@((?:[^{}]|\{[^{}]*\})+)\}", lambda m: str(eval(m.group(1), scope)), value)


d = Data()
scope = {"d": d, "isar_export_proxies": lambda d: "", "bb": types.SimpleNamespace(process=types.SimpleNamespace(
    run=lambda command: (subprocess.run(command, shell=isinstance(command, str), check=True, stdout=subprocess.PIPE, text=True).stdout, "")),
    build=types.SimpleNamespace(exec_func=lambda function, d: print("called", function)))}
for source in re.findall(r"^def \w+\(.*?\):\n(?:    .*\n|\n)+", text, re.M):
    exec(source, scope)

task = re.search(rf"^python {sys.argv[2]}(?::forcevariable)?\(\) \{{\n(.*?)^\}}$", text, re.M | re.S) if sys.argv[2] else None
if task:
    exec(textwrap.dedent(task.group(1)), scope)
    sys.exit()

print("#!/bin/sh\nset -e")
for name, value in d.values.items():
    if re.search(rf"^export {name}\b", text, re.M):
        print(f'export {name}="{d.getVar(name)}"')
for name, body in re.findall(r"^(?!python )([\w:]+)\(\) \{\n(.*?)^\}$", text, re.M | re.S):
    print(f"{name.split(':')[0]}() {{\n{d.expand(body)}}}\n")
if sys.argv[2]:
    print(f'{sys.argv[2]} "$@"')
