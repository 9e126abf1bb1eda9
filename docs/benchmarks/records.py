"""Results of benchmarks as lines of JSON, so that what is there need not be computed again."""

import importlib.metadata
import importlib.util
import json
import signal


def read_records(path):
    """Records of a file, none if it does not exist."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep_record(record, path):
    """Append a record to a file and print it."""
    line = json.dumps(record)
    with path.open("a") as file:
        file.write(line + "\n")
    print(line, flush=True)


def versions(*packages):
    """Versions of the packages that are installed, by name."""
    found = [p for p in packages if importlib.util.find_spec(p.replace("scikit-learn", "sklearn"))]
    return {package: importlib.metadata.version(package) for package in found}


def as_text(numbers):
    """Names and versions in one line."""
    return ", ".join(f"{package} {number}" for package, number in numbers.items())


class TooLong(Exception):
    """A call took more than it was given."""


def in_time(limit, function, *arguments):
    """Call a function; raise TooLong after so many seconds."""

    def stop(*_):
        raise TooLong(f"more than {limit} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(limit)
    try:
        return function(*arguments)
    finally:
        signal.alarm(0)
