"""Distributions of Python from PyPI, changed by pip, and the Python under a venv."""

import os
import shutil
import time
from pathlib import Path

from drift.case import FAILED, NOT_FOUND, WELL, Script, scene
from drift.places import Place, ran


@scene(
    "drift/python-import",
    FAILED,
    flow="running",
    names=("partly", "1.0", "2.0"),
    complains="cannot import name 'two' from 'partly'",
)
def late_import_after_a_partial_upgrade(place: Place) -> Script:
    """Pip upgrades a distribution under the running agent, which then imports a module of it that needs the rest of the new one."""
    python = place.venv()
    place.wheel("partly", "1.0", {"partly/__init__.py": "one = 1\n", "partly/late.py": "from partly import one\n"})
    yield place.script("import partly", "import partly.late", python=python)
    place.wheel("partly", "2.0", {"partly/__init__.py": "one = 1\ntwo = 2\n", "partly/late.py": "from partly import two\n"})


UV_LOCK = 'version = 1\n[[package]]\nname = "partly"\nversion = "1.0"\nsource = { registry = "https://pypi.org/simple" }\n'


@scene(
    "drift/python-import",
    FAILED,
    names=("partly", "1.0", "2.0"),
    proof=("partly 2.0 is installed, uv.lock has 1.0",),
    complains="cannot import name 'old' from 'partly'",
    recorded=True,
)
def upgraded_past_the_lock_file(place: Place) -> Script:
    """Pip upgrades what the lock file pins, which the configuration names by a path in the agent's folder."""
    python = place.venv()
    place.lockfile = "locks/uv.lock"
    place.write("locks/uv.lock", UV_LOCK)
    place.wheel("partly", "1.0", {"partly/__init__.py": "old = 1\n"})
    yield place.script("from partly import old", "old", python=python)
    place.wheel("partly", "2.0", {"partly/__init__.py": "new = 1\n"})


@scene(
    "exception/uncaught",
    FAILED,
    proof=("of the 1 packages that uv.lock pins none is installed in another version",),
    complains="ZeroDivisionError",
)
def error_of_its_own_under_the_lock_file(place: Place) -> Script:
    """What is installed is what the lock file pins; the error is the agent's own."""
    python = place.venv()
    place.lockfile = "uv.lock"
    place.write("uv.lock", UV_LOCK)
    place.wheel("partly", "1.0", {"partly/__init__.py": "old = 1\n"})
    yield place.script("from partly import old", "1 / 0", python=python)


@scene("drift/python-import", NOT_FOUND, names=("python",), complains="not found", stderr="pipe")
def base_python_moved(place: Place) -> Script:
    """The Python that a venv was made of is no longer where it was."""
    base = private_python(place, "base")
    python = place.venv(base=str(base))
    argv = place.script("import json", "json.dumps([])", python=python)
    place.write(f"{place.agent}.sh", f"#!/bin/sh\nexec {' '.join(argv)}\n", 0o755)
    yield (place.path(f"{place.agent}.sh"),)
    (place.outside / "base").rename(place.outside / "base-3.11")


def private_python(place: Place, name: str) -> Path:
    """A Python of this place alone: a copy of the program, over the standard library of this machine."""
    binary = place.outside / name / "bin/python3.11"
    version = ran([PYTHON_BASE, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()
    library = ran([PYTHON_BASE, "-c", "import os; print(os.path.dirname(os.__file__))"]).strip()
    binary = binary.with_name(f"python{version}")
    binary.parent.mkdir(parents=True)
    (place.outside / name / "lib").mkdir()
    shutil.copy(Path(PYTHON_BASE).resolve(), binary)
    (place.outside / name / "lib" / f"python{version}").symlink_to(library)
    return binary


PYTHON_BASE = os.environ.get("ZOO_PYTHON") or str(Path("/usr/bin/python3").resolve())
CLIENT = (
    "anthropic==0.39.0", "anyio==4.16.0", "certifi==2026.10.19.post1", "distro==1.9.0", "h11==0.16.0", "httpcore==1.0.9", "idna==3.20", "jiter==0.19.0",
    "sniffio==1.3.1", "typing-extensions==4.16.0", "typing-inspection==0.4.5", "annotated-types==0.8.0", "pydantic==2.11.7", "pydantic-core==2.33.2",
)  # fmt: skip
FASTAPI = ("fastapi==0.95.2", "starlette==0.27.0", "anyio==4.16.0", "idna==3.20", "sniffio==1.3.1", "typing-extensions==4.16.0")


@scene(
    "drift/python-import",
    FAILED,
    names=("httpx", "0.27.2", "0.28.1"),
    complains="unexpected keyword argument 'proxies'",
    recorded=True,
)
def httpx_under_anthropic(place: Place) -> Script:
    """A keyword of httpx's client is gone, which the model's client still passes."""
    python = place.venv(*CLIENT, "httpx==0.27.2")
    yield place.script("import anthropic", "anthropic.Anthropic(api_key='x')", python=python)
    place.pip("httpx==0.28.1")


@scene(
    "drift/python-import",
    FAILED,
    names=("setuptools", "80.9.0", "82.0.0"),
    complains="No module named 'pkg_resources'",
    stderr="pipe",
)
def setuptools_without_pkg_resources(place: Place) -> Script:
    """A module that came with a distribution of another name is gone."""
    python = place.venv("setuptools==80.9.0")
    yield place.script("import pkg_resources", "pkg_resources.get_distribution('setuptools')", python=python)
    place.pip("setuptools==82.0.0")


@scene(
    "drift/python-import",
    FAILED,
    names=("pydantic", "1.10.13", "2.11.7"),
    complains="has been moved to the `pydantic-settings` package",
)
def pydantic_without_settings(place: Place) -> Script:
    """An import that the new version refuses, with advice in the last line."""
    python = place.venv("pydantic==1.10.13", "typing-extensions==4.16.0")
    yield place.script("from pydantic import BaseSettings", "BaseSettings()", python=python)
    place.pip("pydantic==2.11.7", "pydantic-core==2.33.2", "annotated-types==0.8.0", "typing-inspection==0.4.5")


@scene("drift/python-import", FAILED, names=("pydantic", "1.10.13", "2.11.7"), complains="from 'pydantic.fields'")
def pydantic_under_fastapi(place: Place) -> Script:
    """The framework imports a name that its upgraded dependency no longer has."""
    python = place.venv(*FASTAPI, "pydantic==1.10.13")
    yield place.script("import fastapi", "fastapi.FastAPI()", python=python)
    place.pip("pydantic==2.11.7", "pydantic-core==2.33.2", "annotated-types==0.8.0", "typing-inspection==0.4.5")


@scene(
    "drift/python-import",
    FAILED,
    names=("typing_extensions", "4.16.0", "4.5.0"),
    complains="from 'typing_extensions'",
    stderr="pipe",
)
def typing_extensions_taken_back(place: Place) -> Script:
    """A downgrade: the installer of something else asked for an older version."""
    python = place.venv(
        "pydantic==2.11.7",
        "pydantic-core==2.33.2",
        "annotated-types==0.8.0",
        "typing-inspection==0.4.5",
        "typing-extensions==4.16.0",
    )
    yield place.script("import pydantic", "pydantic.TypeAdapter(int).validate_python(1)", python=python)
    place.pip("typing-extensions==4.5.0")


@scene("drift/python-import", FAILED, names=("bcrypt", "4.0.1", "5.0.0"), complains="password cannot be longer than 72 bytes")
def bcrypt_under_passlib(place: Place) -> Script:
    """It breaks at use, and the words of the exception blame something else."""
    python = place.venv("passlib==1.7.4", "bcrypt==4.0.1")
    yield place.script("from passlib.hash import bcrypt", "bcrypt.using(rounds=4).hash('x')", python=python)
    place.pip("bcrypt==5.0.0")


@scene(
    "drift/python-import",
    FAILED,
    names=("urllib3", "1.26.20", "2.5.0"),
    complains="cannot import name 'appengine' from 'urllib3.contrib'",
)
def urllib3_under_requests_toolbelt(place: Place) -> Script:
    """A dependency of a dependency lost a part."""
    python = place.venv(
        "requests==2.28.2", "requests-toolbelt==0.9.1", "urllib3==1.26.20", "certifi==2026.10.19.post1", "idna==3.20", "charset-normalizer==3.5.3"
    )  # fmt: skip
    yield place.script("import requests_toolbelt", "requests_toolbelt.MultipartEncoder({})", python=python)
    place.pip("urllib3==2.5.0")


@scene(
    "drift/python-import",
    FAILED,
    names=("cryptography", "38.0.4", "42.0.8"),
    complains="has no attribute 'X509_V_FLAG_NOTIFY_POLICY'",
)
def cryptography_under_pyopenssl(place: Place) -> Script:
    """An attribute of a compiled module is gone; the module in the message is called "lib"."""
    python = place.venv("pyOpenSSL==22.0.0", "cryptography==38.0.4", "cffi==2.1.1", "pycparser==3.12")
    yield place.script("from OpenSSL import SSL", "SSL.Context(SSL.TLS_METHOD)", python=python)
    place.pip("cryptography==42.0.8")


@scene(
    "drift/abi", FAILED, names=("numpy", "1.26.4", "2.2.6"), complains="numpy.core.multiarray failed to import", recorded=True
)
def numpy_under_numexpr(place: Place) -> Script:
    """A module that was compiled for the structures of numpy 1."""
    python = place.venv("numexpr==2.8.4", "numpy==1.26.4")
    yield place.script("import numexpr", "numexpr.evaluate('1+1')", python=python)
    place.pip("numpy==2.2.6")


# --- innocent -----------------------------------------------------------------------------------------------------------------


@scene("none", WELL)
def base_python_moved_and_works(place: Place) -> Script:
    """The same move under a venv that has a copy of the interpreter, which finds the machine's own standard library and works."""
    base = private_python(place, "base")
    python = place.venv(base=str(base), copies=True)
    yield place.script("import json", "json.dumps([])", python=python)
    (place.outside / "base").rename(place.outside / "base-3.11")


@scene("none", WELL)
def werkzeug_upgraded_and_works(place: Place) -> Script:
    """A major upgrade that a person would suspect, and the agent works."""
    python = place.venv(
        "flask==2.2.5", "werkzeug==2.2.3", "jinja2==3.1.6", "markupsafe==2.1.5", "itsdangerous==2.2.0", "click==8.5.1"
    )
    yield place.script("import flask", "flask.Flask('x')", python=python)
    place.pip("werkzeug==3.0.6")


@scene("exception/network", FAILED, complains="Connection refused")
def refused_through_an_upgraded_client(place: Place) -> Script:
    """Httpx was upgraded and every frame of the exception is in it; but nobody listens on that port."""
    python = place.venv(
        "httpx==0.27.2",
        *(each for each in CLIENT if each.startswith(("anyio", "certifi", "h11", "httpcore", "idna", "sniffio", "typing-ext"))),
    )
    yield place.script("import httpx", "httpx.get('http://127.0.0.1:9/', trust_env=False)", python=python)
    place.pip("httpx==0.28.1")


@scene("exception/uncaught", FAILED, complains="unexpected keyword argument 'proxies'")
def own_wrong_keyword_after_an_unrelated_upgrade(place: Place) -> Script:
    """The words of the httpx case, raised by the agent's own function; httpx was upgraded, and is not in the traceback."""
    python = place.venv(
        "httpx==0.27.2",
        *(each for each in CLIENT if each.startswith(("anyio", "certifi", "h11", "httpcore", "idna", "sniffio", "typing-ext"))),
    )
    yield place.script("import httpx\ndef client(url): pass", "client(proxies=None)", python=python)
    place.pip("httpx==0.28.1")


@scene("exception/uncaught", FAILED, complains="cannot import name 'missing' from 'plans'", stderr="pipe", recorded=True)
def own_import_error_after_an_unrelated_upgrade(place: Place) -> Script:
    """A name is missing in a module of the agent's own; bcrypt was upgraded."""
    python = place.venv("passlib==1.7.4", "bcrypt==4.0.1")
    place.write("plans.py", "made = 1\n")
    yield place.script("import bcrypt", "from plans import missing", python=python)
    place.pip("bcrypt==5.0.0")


@scene("exception/uncaught", FAILED, complains="KeyError")
def own_exception_with_no_change(place: Place) -> Script:
    """Nothing changed, and its own code raises."""
    python = place.venv("bcrypt==4.0.1")
    yield place.script("import bcrypt", "{}['plan']", python=python)


@scene("exception/uncaught", FAILED, flow="first", complains="No module named 'pkg_resources'", proof=("first run",))
def first_run_with_a_module_missing(place: Place) -> Script:
    """It never ran before, in an environment that was made long ago: no change can be named."""
    python = place.venv("setuptools==82.0.0")
    yield place.script("import pkg_resources", "pass", python=python)
    age(place.outside / "venv", days=40)


def age(folder: Path, days: int) -> None:
    """Make everything below a folder look as if it had been put there some days ago (its ctime stays)."""
    then = time.time() - days * 86400
    for file in (folder, *folder.rglob("*")):
        os.utime(file, (then, then), follow_symlinks=False)
