# SPDX-License-Identifier: GPL-2.0-or-later
"""For the tests of the harness: a small base, run programs, TAP."""

import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

HARNESS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HARNESS))
import tap   # noqa: E402

TOP = HARNESS.parent


def run(*command, cwd=None, **environment):
    """Returns (status, stdout, stderr). A variable given as None is unset."""
    merged = {k: v for k, v in {**os.environ, **environment}.items() if v is not None}
    result = subprocess.run([str(c) for c in command], cwd=cwd, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=merged, check=False)
    return result.returncode, result.stdout, result.stderr


def write(path, text, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')
    path.chmod(mode)
    return path


def errors(text):
    """Lines that report an error, as a user sees them."""
    return [l for l in text.splitlines() if ': error: ' in l]


def one_error(text, *words):
    """There must be one such line, and it must hold these words."""
    found = errors(text)
    assert len(found) == 1, f'expected one line of error, got:\n{text}'
    for word in words:
        assert str(word) in found[0], f'«{word}» is missing in: {found[0]}'


class Skip(Exception):
    """Raised by a test that cannot be run here; says why."""


def main(tests):
    """Run test functions, each with a new folder; the docstring is the name."""
    out = tap.Writer()
    for function in tests:
        folder = Path(tempfile.mkdtemp(prefix='pebs-test-'))
        name = function.__doc__.split('\n', maxsplit=1)[0].rstrip('.')
        try:
            function(folder)
            out.case('pass', name)
        except Skip as skip:
            out.case('skip', name, str(skip))
        except Exception:   # pylint: disable=broad-except
            out.case('fail', name, details=traceback.format_exc().splitlines())
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(out.end())
