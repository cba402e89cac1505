"""Shared by all sections: files, settings with defaults, and complaints."""

import copy
import pathlib
import re

import tomli
import yaml

# The keys of an entry of [server.tokens]: the defaults have none.
TOKEN = {"role": "", "env": "", "file": "", "expires": ""}
# Variables of the program that are not settings.
BESIDE_SETTINGS = {"DISTILLERY_CONFIG", "DISTILLERY_SERVER", "DISTILLERY_TEACHER_URL", "DISTILLERY_TOKEN"}


class UniqueKeys(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML that refuses duplicate keys: the second one would win silently."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: `{key.value}` stands twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class Tree:
    """A checkout, with complaints and notes about it."""

    def __init__(self, root: pathlib.Path, defaults: pathlib.Path | None = None, overlay: str | None = None):
        self.root = root
        self.overlay = overlay
        self.defaults = filled(tomli.loads(defaults.read_text())) if defaults else {}
        self.complaints: list[str] = []
        self.notes: list[str] = []

    def complain(self, place: str, words: str) -> None:
        self.complaints.append(f"{place}: {words}")

    def note(self, words: str) -> None:
        self.notes.append(words)

    def text(self, path: str) -> str:
        return (self.root / path).read_text()

    def yaml(self, path: str):
        return yaml.load(self.text(path), UniqueKeys)  # noqa: S506 (a SafeLoader)

    def version(self) -> str:
        """The version of the workspace, which is the tag of images."""
        return tomli.loads(self.text("Cargo.toml"))["workspace"]["package"]["version"]

    def variables(self) -> set[str]:
        """Every variable of the program, from `distillery config`."""
        return {f"DISTILLERY_{variable}" for variable in leaves(self.defaults)} | BESIDE_SETTINGS

    def config(self, place: str, text: str, environment: dict[str, str]) -> dict:
        """The settings of a file and of variables over the defaults. Unknown ones are complaints."""
        values = copy.deepcopy(self.defaults)
        self.lay(place, values, tomli.loads(text), "")
        for name, value in environment.items():
            path = leaves(values).get(name.removeprefix("DISTILLERY_"))
            if name.startswith("DISTILLERY_") and path:
                put(values, path, value)
        return values

    def lay(self, place: str, values: dict, given: dict, path: str) -> None:
        for key, value in given.items():
            here = f"{path}.{key}".lstrip(".")
            if path in ("server.tokens", "teachers") and key not in values:
                values[key] = copy.deepcopy(TOKEN if path == "server.tokens" else self.defaults["teachers"]["local"])
            if key not in values:
                self.complain(place, f"`{here}` is not a setting of `distillery config`")
            elif isinstance(values[key], dict) and isinstance(value, dict):
                self.lay(place, values[key], value, here)
            elif type(values[key]) is not type(value) and not (type(values[key]) is float and type(value) is int):
                self.complain(place, f"`{here}` is {value!r}, and its default is {values[key]!r}")
            else:
                values[key] = value


def filled(defaults: dict) -> dict:
    """Profiles have the keys of the first one."""
    local = defaults["teachers"]["local"]
    for profile in defaults["teachers"].values():
        for key, value in local.items():
            profile.setdefault(key, value)
    return defaults


def leaves(values: dict, path: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Every setting's path by its variable, without the prefix."""
    found = {}
    for key, value in values.items():
        here = (*path, key)
        if isinstance(value, dict):
            found |= leaves(value, here)
        else:
            found[re.sub(r"[-.]", "_", "_".join(here)).upper()] = here
    return found


def put(values: dict, path: tuple[str, ...], text: str) -> None:
    """Set a value from a variable's text, in the type of the setting."""
    *outer, last = path
    for key in outer:
        values = values[key]
    kind = type(values[last])
    values[last] = text == "true" if kind is bool else kind(text)


def last_call_seconds(config: dict, role: str) -> int:
    """The longest time from SIGTERM to the end of a role: notice, calls in flight, and the longest call to a teacher if it
    calls teachers."""
    server = config["server"]
    asks = role in ("harvester", "all") and config["harvester"]["workers"] > 0
    longest = max(profile["total_seconds"] for profile in config["teachers"].values()) if asks else 0
    return server["notice_seconds"] + max(server["drain_seconds"], longest)


def secret_in(name: str, value) -> bool:
    """Whether a variable's value is a plain-text secret, by its name or its form."""
    text = str(value or "")
    if re.search(r"://[^/\s:@]*:[^/\s@$]+@", text) or "PRIVATE KEY" in text:
        return True
    is_secret = re.search(r"(PASSWORD|PASSWD|SECRET|TOKEN|API_KEY|ACCESS_KEY|ACCESS_KEY_ID)(__?FILE)?$", name)
    is_elsewhere = text.startswith("/") or re.fullmatch(r"\$\{[A-Z0-9_]+:-\}", text) or not text
    return bool(is_secret) and not is_elsewhere
