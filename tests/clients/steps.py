"""What the programs in Python have in common. Their arguments: BASE CA DIRECTORY, and what they say themselves."""

import hashlib
import os
import sys

BASE, CA, DIRECTORY = sys.argv[1:4]
UPLOAD = os.path.join(DIRECTORY, "upload.bin")
# What is sent without its length is the beginning of that file.
CHUNKED = 5 << 20
CHUNK = 64 << 10
LARGE = 50 << 20
FIRST, LAST = 1 << 20, (2 << 20) - 1
NOTE = {"title": "a note", "tags": ["ä", "ö"], "size": 3}

steps = {}


def step(function):
    """Makes a function a step, named as the function is."""
    steps[function.__name__.replace("_", "-")] = function
    return function


def same(what, found, wanted):
    """Fails where something is not what it should be."""
    if found != wanted:
        raise AssertionError(f"{what}: {found!r} instead of {wanted!r}")


def report(name, error=None):
    """Tells how a step ended."""
    print(f"ok {name}" if error is None else f"failed {name} {type(error).__name__}: {error}", flush=True)


def run():
    """Runs all steps, and ends with 1 where one of them failed."""
    failed = False
    for name, function in steps.items():
        try:
            function()
            report(name)
        except Exception as error:
            failed = True
            report(name, error)
    sys.exit(failed)


def upload():
    """The file that is sent."""
    with open(UPLOAD, "rb") as file:
        return file.read()


def chunks():
    """Its beginning, piece by piece."""
    with open(UPLOAD, "rb") as file:
        for _ in range(CHUNKED // CHUNK):
            yield file.read(CHUNK)


def told(content):
    """What upstream should tell of content that it got."""
    return {"length": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def hash_of(pieces):
    """The hash of content that comes in pieces."""
    hash = hashlib.sha256()
    for piece in pieces:
        hash.update(piece)
    return hash.hexdigest()
