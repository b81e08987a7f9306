"""Packages of languages: what is installed, what owns a module or a file, what a lock file says, what an error is about."""

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentscope.distributions import Distribution, NodePackage, container, system
from agentscope.distributions.accused import accused_by
from agentscope.distributions.called import SOURCE_LIMIT_BYTES, bound_to, called_package
from agentscope.distributions.container import image_of, layers_of
from agentscope.distributions.installed import (
    installed,
    normal,
    owner_of_file,
    owner_of_module,
    requirements_of,
    tops_of,
)
from agentscope.distributions.lockfile import Deviation, NotALock, against, parse_lock, read_lock
from agentscope.distributions.node import node_packages
from agentscope.distributions.system import system_packages
from agentscope.distributions.versions import newer
from agentscope.readers import read

SITE = "/srv/venv/lib/python3.11/site-packages"


def wheel(root, name, version, files, *, site=SITE, requires=(), **more):
    """An installed distribution as pip leaves it."""
    info = root / site.lstrip("/") / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    header = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(
        f"Requires-Dist: {each}\n" for each in requires
    )
    (info / "METADATA").write_text(f"{header}\nName: no field, but text\n")
    (info / "RECORD").write_text("".join(f"{file},sha256=x,1\n" for file in (*files, f"{info.name}/METADATA")))
    (info / "INSTALLER").write_text(more.get("installer", "pip\n"))
    if "origin" in more:
        (info / "direct_url.json").write_text(json.dumps({"url": more["origin"]}))
    return info


@pytest.fixture
def root(tmp_path):
    """A venv with a few distributions of different make."""
    wheel(tmp_path, "PyYAML", "6.0", ["yaml/__init__.py", "_yaml/__init__.py", "../../../bin/yaml"])
    wheel(tmp_path, "protobuf", "4.25.8", ["google/protobuf/__init__.py", "google/_upb/_message.abi3.so"])
    wheel(
        tmp_path,
        "googleapis-common-protos",
        "1.52.0",
        ["google/rpc/status_pb2.py", "google/api/http_pb2.py"],
        requires=("protobuf >= 3.6.0",),
    )
    wheel(
        tmp_path,
        "six",
        "1.16",
        ["six.py", "__pycache__/six.cpython-311.pyc"],
        origin="git+https://user:secret@example.org/six.git?token=1",
    )
    egg = tmp_path / SITE.lstrip("/") / "old-0.1.egg-info"
    egg.mkdir()
    (egg / "PKG-INFO").write_text("Name: old\nVersion: 0.1\n\n")
    (egg / "top_level.txt").write_text("old\noldtools\n")
    (tmp_path / SITE.lstrip("/") / "Single-2.0-py3.11.egg-info").write_text("Name: Single\nVersion: 2.0\n")
    return tmp_path


def found(root, *sites):
    return {each.name: each for each in installed(sites or (SITE,), root=str(root))[0]}


def test_distributions_are_read_from_their_metadata(root):
    """Name and version as the metadata has them, what can be imported, who installed it, where it came from without its password."""
    each = found(root)
    assert set(each) == {"PyYAML", "protobuf", "googleapis-common-protos", "six", "old", "Single"}
    assert each["PyYAML"].tops == ("_yaml", "yaml")
    assert each["PyYAML"].installer == "pip"
    assert each["protobuf"].tops == ("google._upb", "google.protobuf")
    assert each["six"].tops == ("six",)
    assert each["six"].origin == "git+https://example.org/six.git"
    assert (each["old"].version, each["old"].tops) == ("0.1", ("old", "oldtools"))
    assert each["Single"].version == "2.0"
    assert each["six"].folder == f"{SITE}/six-1.16.dist-info"


def test_the_earlier_folder_counts(root):
    """As the interpreter does: of two distributions with one name the first on the path is the one."""
    wheel(root, "six", "1.9", ["six.py"], site="/usr/lib/python3/dist-packages")
    assert found(root, SITE, "/usr/lib/python3/dist-packages")["six"].version == "1.16"
    assert found(root, "/usr/lib/python3/dist-packages", SITE)["six"].version == "1.9"


def test_a_change_is_seen_at_once(root):
    """What is remembered is of files that are the same: an upgrade, a reinstallation and a removal show."""
    before = found(root)
    record = root / f"{SITE}/six-1.16.dist-info/RECORD".lstrip("/")
    record.write_text("six.py,sha256=other,2\n")
    after = found(root)
    assert after["six"].record != before["six"].record
    assert after["PyYAML"] == before["PyYAML"]
    for file in record.parent.iterdir():
        file.unlink()
    record.parent.rmdir()
    assert "six" not in found(root)


def test_nix_environments_are_links_and_are_followed_inside_the_root(root, tmp_path_factory):
    """A link to a store inside the root counts; one that leads out of the root leads nowhere."""
    wheel(root, "linked", "3.0", ["linked.py"], site="/nix/store/abc/site-packages")
    site = root / SITE.lstrip("/")
    (site / "linked-3.0.dist-info").symlink_to("/nix/store/abc/site-packages/linked-3.0.dist-info")
    outside = wheel(tmp_path_factory.mktemp("outside"), "evil", "1.0", ["evil.py"], site="/s")
    (site / "evil-1.0.dist-info").symlink_to(outside)
    assert found(root)["linked"].version == "3.0"
    assert "evil" not in found(root)


def test_hostile_metadata_costs_only_itself(root):
    """FIFOs, links, forged headers and text that is none are passed over or cleaned."""
    site = root / SITE.lstrip("/")
    bad = site / "bad-1.dist-info"
    bad.mkdir()
    os.mkfifo(bad / "RECORD")
    os.mkfifo(bad / "METADATA")
    odd = site / "odd-9.dist-info"
    odd.mkdir()
    (odd / "METADATA").write_bytes(b"Name: o\x1b[2Jdd\xff\nVersion: 1\r\n")
    (odd / "RECORD").write_bytes(b"\xff\xfe,\n" * 1000 + b'"a,b/c.py",,\n')
    (odd / "direct_url.json").write_text("[" * 100_000)
    each = found(root)
    assert "o?[2Jdd\ufffd" in each
    assert each["bad"].version == "1"
    assert {"six", "PyYAML"} <= set(each)


def test_a_module_belongs_to_the_distribution_with_the_longest_part_of_its_name(root):
    """Namespace packages are told apart; a module that nobody has belongs to the distribution that is called like it."""
    each = tuple(found(root).values())
    assert [owner.name for owner in owner_of_module("google.rpc.status_pb2", each)] == ["googleapis-common-protos"]
    assert [owner.name for owner in owner_of_module("google.protobuf.internal", each)] == ["protobuf"]
    assert [owner.name for owner in owner_of_module("yaml", each)] == ["PyYAML"]
    assert [owner.name for owner in owner_of_module("single.part", each)] == ["Single"]
    assert owner_of_module("nobody", each) == ()


def test_a_file_belongs_to_the_distribution_that_records_it(root):
    """By what it can import, and where several can, by RECORD."""
    each = tuple(found(root).values())
    for path, name in (
        (f"{SITE}/google/protobuf/descriptor.py", "protobuf"),
        (f"{SITE}/google/rpc/status_pb2.py", "googleapis-common-protos"),
        (f"{SITE}/six.py", "six"),
        (f"{SITE}/stray/x.py", None),
        ("/srv/agent.py", None),
    ):
        owner = owner_of_file(path, each, root=str(root))
        assert (owner.name if owner else None) == name


def test_requirements_are_read_with_their_extras(root):
    """What a distribution asks for, by normalised name; lines that are none are left out."""
    wheel(
        root, "app", "1", ["app.py"], requires=("Protobuf>=3", 'bcrypt (>=3.1.0) ; extra == "bcrypt"', "not a requirement !!")
    )
    assert requirements_of(found(root)["app"], root=str(root)) == ("protobuf", "bcrypt")


@pytest.mark.parametrize(
    ("record", "tops"),
    [
        (b"numpy/__init__.py,,\nnumpy.libs/lib.so,,\nnumpy-1.0.dist-info/RECORD,,\n", ("numpy",)),
        (b"_cffi_backend.cpython-311-x86_64-linux-gnu.so,,\n", ("_cffi_backend",)),
        (b"a/b.py,,\na/c/d.py,,\n", ("a.b", "a.c")),
        (b"", ()),
        (b"../../etc/passwd,,\n/abs,,\n", ()),
    ],
)
def test_what_can_be_imported_is_read_off_record(record, tops):
    """Packages, single modules, extension modules and namespace packages; nothing else is a name."""
    assert tops_of(record) == tops


def test_node_packages_are_found_with_scopes_links_and_nested_folders(tmp_path):
    """Pnpm's links to its store count, nested packages too; what has no package.json does not."""
    for place, version in (
        ("app/node_modules/chalk", "5.0.0"),
        ("app/node_modules/chalk/node_modules/ansi", "1.0.0"),
        ("app/node_modules/@scope/addon", "2.0.0"),
        ("store/zod", "3.22.0"),
    ):
        folder = tmp_path / place
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text(
            json.dumps({"name": place.split("node_modules/")[-1].removeprefix("store/"), "version": version})
        )
    (tmp_path / "app/node_modules/zod").symlink_to("/store/zod")
    (tmp_path / "app/node_modules/.bin").mkdir()
    (tmp_path / "app/node_modules/empty").mkdir()
    (tmp_path / "app/node_modules/deep").mkdir()
    (tmp_path / "app/node_modules/deep/package.json").write_text("[" * 100_000)
    packages, left_out = node_packages(("/app/node_modules",), root=str(tmp_path))
    assert [(package.name, package.version) for package in packages] == [
        ("@scope/addon", "2.0.0"), ("chalk", "5.0.0"), ("ansi", "1.0.0"), ("zod", "3.22.0"),
    ]  # fmt: skip
    assert left_out == 0


@pytest.mark.parametrize(
    ("ecosystem", "older", "later"),
    [
        ("dpkg", "1.0~rc1-1", "1.0-1"), ("dpkg", "9", "1:0.1"), ("dpkg", "3.0.9", "3.0.10"), ("dpkg", "1.0", "1.0+b1"),
        ("dpkg", "2.36-9+deb12u7", "2.36-9+deb12u14"), ("dpkg", "1.0-1", "1.0-1ubuntu1"), ("dpkg", "1.0", "1.0.1"),
        ("dpkg", "3.0.2-0ubuntu1.9", "3.0.2-0ubuntu1.18"), ("apk", "3.1.4-r0", "3.1.4-r1"),
        ("python", "1.9", "1.10"), ("python", "2.0rc1", "2.0"), ("node", "1.0.0-rc.1", "1.0.0"), ("node", "4.17.9", "4.17.21"),
    ],
)  # fmt: skip
def test_versions_are_ordered_as_their_ecosystem_does(ecosystem, older, later):
    """The later one is newer, the older one is not, and neither is newer than itself."""
    assert newer(ecosystem, later, older)
    assert not newer(ecosystem, older, later)
    assert not newer(ecosystem, older, older)


def test_versions_that_are_none_are_not_newer():
    """What cannot be compared decides nothing."""
    assert not newer("python", "not a version", "1.0")
    assert not newer("dpkg", "9" * 500, "1")
    assert not newer("node", "x.y", "x.y.z")


STATUS = b"""Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9
Description: shell
 Version: 0 is no field

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: libc6
Status: install ok installed
Architecture: i386
Version: 2.30-1
"""


def test_the_packages_of_the_system_are_read_from_its_database(tmp_path):
    """dpkg, apk and pacman; what was removed is not installed, a second architecture is told apart."""
    database = tmp_path / "var/lib/dpkg/status"
    database.parent.mkdir(parents=True)
    database.write_bytes(STATUS)
    assert system_packages(root=str(tmp_path)).versions == (("libc6", "2.36-9"), ("libc6:i386", "2.30-1"))
    database.unlink()
    apk = tmp_path / "lib/apk/db/installed"
    apk.parent.mkdir(parents=True)
    apk.write_text("C:Q1\nP:musl\nV:1.2.4-r0\nF:lib\n\nP:ssl\nV:3\n")
    assert system_packages(root=str(tmp_path)).versions == (("musl", "1.2.4-r0"), ("ssl", "3"))
    apk.unlink()
    (tmp_path / "var/lib/pacman/local/gtk-update-icon-cache-1:4.0-2").mkdir(parents=True)
    assert system_packages(root=str(tmp_path)).versions == (("gtk-update-icon-cache", "1:4.0-2"),)
    assert system.system_packages(root=str(tmp_path / "var")) is None


def test_the_image_of_a_container_is_read_from_its_runtime(tmp_path):
    """Docker by the first digits of the id, Podman by its list, containerd by the layers that the root is mounted from."""
    whole = "0123456789ab" + "c" * 52
    config = tmp_path / f"{container.DOCKER}/{whole}/config.v2.json".lstrip("/")
    config.parent.mkdir(parents=True)
    described = {
        "ID": whole,
        "Created": "2026-11-22T20:02:38.123456789Z",
        "Image": "sha256:abc",
        "Config": {"Image": "agent:1"},
    }
    config.write_text(json.dumps(described))
    image = image_of("0123456789ab", root=str(tmp_path))
    assert (image.id, image.name, image.runtime) == ("sha256:abc", "agent:1", "docker")
    stored = tmp_path / container.STORAGE.lstrip("/")
    stored.parent.mkdir(parents=True)
    metadata = json.dumps({"image-name": "quay.io/agent:2"})
    stored.write_text(json.dumps([{"id": "f" * 64, "image": "def", "created": "2026-11-22T20:02:38Z", "metadata": metadata}]))
    assert image_of("f" * 12, root=str(tmp_path)).name == "quay.io/agent:2"
    assert image_of("../../../etc", root=str(tmp_path)) is None
    line = "500 400 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/var/lib/x/2/fs:/var/lib/x/1/fs,upperdir=/u,workdir=/w"
    assert layers_of(line) != layers_of(line.replace("x/2", "x/3"))
    assert layers_of("20 1 8:1 / / rw - ext4 /dev/sda1 rw") is None


LOCKS = {
    "requirements.txt": "# pinned\n--index-url https://x\nhttpx==0.27.2 \\\n    --hash=sha256:aa\nidna>=3  # open\nold==1 ; python_version < '3'\nPyYAML[extra] == 6.0.0\n-e .\n",
    "uv.lock": 'version = 1\n[[package]]\nname = "httpx"\nversion = "0.27.2"\nsource = { registry = "https://pypi.org/simple" }\n[[package]]\nname = "pyyaml"\nversion = "6.0"\n',
    "poetry.lock": '[[package]]\nname = "httpx"\nversion = "0.27.2"\noptional = false\n[[package]]\nname = "PyYAML"\nversion = "6.0"\n[metadata]\nlock-version = "2.0"\n',
    "pylock.toml": 'lock-version = "1.0"\ncreated-by = "pip"\n[[packages]]\nname = "httpx"\nversion = "0.27.2"\n[[packages]]\nname = "pyyaml"\nversion = "6.0"\n[[packages]]\nname = "old"\nversion = "1"\nmarker = "python_version < \'3\'"\n',
    "Pipfile.lock": json.dumps(
        {"_meta": {}, "default": {"httpx": {"version": "==0.27.2"}, "pyyaml": {"version": "==6.0"}}, "develop": {}}
    ),
}


@pytest.mark.parametrize("name", sorted(LOCKS))
def test_a_lock_file_is_compared_with_what_is_installed(name):
    """Of every form: the one that deviates is named with both versions; 6.0 is 6.0.0, and what is not locked is not judged."""
    lock = parse_lock(f"/srv/{name}", LOCKS[name].encode(), python="3.11.2")
    have = tuple(
        Distribution(name=n, version=v, folder="/x")
        for n, v in (("httpx", "0.28.1"), ("PyYAML", "6.0"), ("idna", "3"), ("old", "2"))
    )
    assert against(lock, have) == (Deviation(name="httpx", locked=("0.27.2",), installed="0.28.1"),)
    assert "0.28.1" in against(lock, have)[0].says()


def test_packages_locked_in_several_versions_may_be_any_of_them():
    """Uv locks a package once for each system that differs."""
    text = "".join(f'[[package]]\nname = "numpy"\nversion = "{version}"\n' for version in ("1.26.4", "2.2.6"))
    lock = parse_lock("/srv/uv.lock", text.encode())
    assert against(lock, (Distribution(name="numpy", version="2.2.6", folder="/x"),)) == ()
    assert against(lock, (Distribution(name="numpy", version="2.0", folder="/x"),))[0].locked == ("1.26.4", "2.2.6")


def test_npm_locks_are_by_folder():
    """One package stands in several versions in several folders: each is compared with its own line."""
    raw = json.dumps(
        {"packages": {"": {}, "node_modules/a": {"version": "1.0.0"}, "node_modules/b/node_modules/a": {"version": "2.0.0"}}}
    )
    lock = parse_lock("/srv/package-lock.json", raw.encode())
    packages = (
        NodePackage(name="a", version="1.0.0", folder="/srv/node_modules/a"),
        NodePackage(name="a", version="2.1.0", folder="/srv/node_modules/b/node_modules/a"),
    )
    assert [deviation.installed for deviation in against(lock, packages)] == ["2.1.0"]


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("uv.lock", b"not toml ["), ("uv.lock", b"x = 1"), ("uv.lock", b"package = 1"), ("uv.lock", b"a = " + b"[" * 100_000),
        ("uv.lock", b"\xff\xfe"), ("package-lock.json", b"{}"), ("Pipfile.lock", b"[]"), ("pylock.toml", b"packages = [1]"),
        ("Cargo.lock", b""), ("package-lock.json", b'{"packages": ' + b"[" * 100_000),
    ],
)  # fmt: skip
def test_a_file_that_is_no_lock_says_so(name, raw):
    """Malformed, of another form, or nested to exhaust the stack: one error, of one type."""
    with pytest.raises(NotALock):
        parse_lock(f"/srv/{name}", raw)


def test_a_lock_file_is_read_inside_the_root(tmp_path):
    """The path is the process's own; a link out of its root leads nowhere."""
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv/uv.lock").write_text(LOCKS["uv.lock"])
    assert read_lock("/srv/uv.lock", root=str(tmp_path)).versions["httpx"] == ("0.27.2",)
    (tmp_path / "srv/poetry.lock").symlink_to(Path(__file__))
    with pytest.raises(OSError, match="No such file"):
        read_lock("/srv/poetry.lock", root=str(tmp_path))


def accused(root, words, *, before=(), node=()):
    """(kind, [(role, name), ...]) of the first reading of the words."""
    reading = read(words, kind="stderr")[0]
    failure = accused_by(reading, words, tuple(found(root).values()), before, node, root=str(root))
    return failure and (failure.failure, [(each.role, each.name) for each in failure.accused])


def traceback(last, *files):
    """A Python traceback through these files."""
    frames = "".join(f'  File "{file}", line 3, in f\n    g()\n' for file in ("/srv/agent.py", *files))
    return f"Traceback (most recent call last):\n{frames}{last}\n"


@pytest.mark.parametrize(
    ("last", "kind", "first"),
    [
        ("ImportError: cannot import name 'x' from 'yaml' (/srv/x.py)", "import", ("named", "PyYAML")),
        ("ModuleNotFoundError: No module named 'google.rpc'", "import", ("named", "googleapis-common-protos")),
        ("ModuleNotFoundError: No module named 'nowhere'", "import", ("named", "nowhere")),
        ("AttributeError: module 'yaml' has no attribute 'load_all2'", "attribute", ("named", "PyYAML")),
        ("ImportError: yaml.reader failed to import", "import", ("named", "PyYAML")),
        ("ValueError: yaml.dtype size changed, may indicate binary incompatibility. Expected 96 from C header, got 88 from PyObject", "abi", ("named", "PyYAML")),
        ("ImportError: six>=2.0,<3 is required for a normal functioning of this module, but found six==1.16.", "requirement", ("named", "six")),
    ],
)  # fmt: skip
def test_the_distribution_that_the_words_name_is_accused_first(root, last, kind, first):
    """By a module, by the module of an ABI message, by a requirement; a module that nobody has is accused by its own name."""
    said, accused_ones = accused(root, traceback(last))
    assert said == kind
    assert accused_ones[0] == first


def test_what_no_words_name_is_found_by_the_frames_and_their_requirements(root):
    """The innermost distribution of the traceback, then what it asks for: one of those is what changed."""
    words = traceback("TypeError: __init__() got an unexpected keyword argument 'proxies'", f"{SITE}/google/rpc/status_pb2.py")
    kind, accused_ones = accused(root, words)
    assert kind == "argument"
    assert accused_ones == [("frame", "googleapis-common-protos"), ("dependency", "protobuf")]


def test_a_module_that_is_gone_belongs_to_what_had_it_before(root):
    """Setuptools 82 no longer has pkg_resources: only the last healthy run knows whose it was."""
    wheel(root, "setuptools", "82.0", ["setuptools/__init__.py"])
    before = (Distribution(name="setuptools", version="80.9", folder=f"{SITE}/x", tops=("pkg_resources", "setuptools")),)
    assert accused(root, traceback("ModuleNotFoundError: No module named 'pkg_resources'"), before=before)[1][0] == (
        "named",
        "setuptools",
    )


def test_a_circular_import_is_about_no_package(root):
    """The program's own knot: nothing that was installed did that."""
    last = "ImportError: cannot import name 'a' from partially initialized module 'yaml' (most likely due to a circular import)"
    assert accused(root, traceback(last)) is None


def test_node_packages_are_accused_by_the_stack_or_by_name(root):
    """A package that cannot be found is named; the files of a stack lead to theirs."""
    missing = "node:internal/modules/cjs/loader:1148\n  throw err;\n  ^\n\nError: Cannot find module 'chalk'\nRequire stack:\n- /srv/app/index.js\n    at Module._resolveFilename (node:internal/modules/cjs/loader:1145:15)\n    at Object.<anonymous> (/srv/app/index.js:1:15) {\n  code: 'MODULE_NOT_FOUND'\n}\n"
    assert accused(root, missing) == ("import", [("named", "chalk")])
    thrown = "/srv/app/node_modules/@scope/addon/index.js:3\n    x.y.z()\n      ^\n\nTypeError: Cannot read properties of undefined (reading 'z')\n    at f (/srv/app/node_modules/@scope/addon/index.js:3:7)\n    at Object.<anonymous> (/srv/app/index.js:1:15)\n"
    node = (NodePackage(name="@scope/addon", version="2.0.0", folder="/srv/app/node_modules/@scope/addon"),)
    reading = read(thrown, kind="stderr")[0]
    failure = accused_by(reading, thrown, (), (), node)
    assert [(each.name, each.version) for each in failure.accused] == [("@scope/addon", "2.0.0")]


def test_names_are_compared_as_the_specification_says():
    """Case, dots, dashes and underscores make no difference."""
    assert normal("Foo.Bar__baz-Q") == "foo-bar-baz-q"


class TestCalled:
    """Which Node package gives what was called and is no function."""

    @pytest.mark.parametrize(
        ("source", "name", "package"),
        [
            ("const limit = require('p-limit');\nlimit(1);", "limit", "p-limit"),
            ('var a = 1\nlet limit = require( "p-limit" ).default\n  await limit (1)', "limit", "p-limit"),
            ("import limit from 'p-limit'\nlimit(1)", "limit", "p-limit"),
            ("import * as chat from '@scope/chat/client'\nchat(1)", "chat", "@scope/chat"),
            ("const { v4, v5: five } = require('uuid');\nfive()", "five", "uuid"),
            ("const { v4 } = require('uuid');\nv4()", "v4", "uuid"),
            ('const uuid_1 = require("uuid");\n(0, uuid_1.v4)()', "uuid_1", "uuid"),
            ("const x_1 = __importDefault(require(\"chalk\"));\n(0 , x_1.default)('a')", "x_1", "chalk"),
            ("const limit = require('p-limit'); // limit = 3\n  /* let limit */\n// one limit\nlimit(1);", "limit", "p-limit"),
        ],
    )
    def test_a_name_that_is_bound_once(self, source, name, package):
        """By require or import, whole or in part, as people write it and as TypeScript does."""
        assert bound_to(source, source.count("\n") + 1, name) == package

    @pytest.mark.parametrize(
        "source",
        [
            "const limit = require('./limit');\nlimit(1);",
            "const limit = require('p-limit');\nfunction f(limit) {\nlimit(1);",
            "const limit = require('p-limit');\nconst f = limit => \nlimit(1);",
            "let limit = require('p-limit');\nlimit = 3;\nlimit(1);",
            "const limit = require('p-limit');\n{ let limit = 3;\nlimit(1);",
            "const limit = require('p-limit');\nfor (const { limit } of all)\nlimit(1);",
            "const limit = { of: require('p-limit') };\nlimit(1);",
            "const limit = require(name);\nlimit(1);",
            "const limit = require('a');\nvar limit = require('b');\nlimit(1);",
            "const limit = require('p-limit');\ntable.limit = 1;",
            "const limits = require('p-limit');\nlimit(1);",
            "const limit = require('p-limit');\nmore(1);",
        ],
    )
    def test_a_name_that_could_be_another(self, source):
        """A parameter, a second binding, an assignment, a file of its own, another line: nothing is said."""
        assert bound_to(source, source.count("\n") + 1, "limit") is None

    def test_the_file_must_be_older_than_the_baseline(self, tmp_path):
        """Where its author changed it too, that may be the reason; a name that is asked of an object says nothing of a package."""
        file = tmp_path / "agent.js"
        file.write_text("const limit = require('p-limit');\nlimit(1);\n")
        changed_ns = file.stat().st_ctime_ns
        for message, before_ns, package in (
            ("limit is not a function", changed_ns, "p-limit"),
            ("TypeError: limit is not a constructor", changed_ns, "p-limit"),
            ("limit is not a function", changed_ns - 1, None),
            ("table.limit is not a function", changed_ns, None),
            ("(intermediate value).limit is not a function", changed_ns, None),
            ("limit is not iterable", changed_ns, None),
        ):
            assert called_package(str(file), 2, message, before_ns=before_ns) == package
        assert called_package("agent.js", 2, "limit is not a function", before_ns=changed_ns) is None
        assert called_package(str(tmp_path), 2, "limit is not a function", before_ns=changed_ns) is None
        assert called_package(str(file), 99, "limit is not a function", before_ns=changed_ns) is None

    @pytest.mark.parametrize(
        "piece", ["/*", "const {", "const limit = require(", "(", "limit ", "limit", "import limit from '", " ", "\n", ";//"]
    )
    def test_a_source_that_is_made_to_be_slow_is_not(self, piece):
        """Each of these over and over, as much as is read of a file."""
        source = piece * (SOURCE_LIMIT_BYTES // len(piece))
        began = time.perf_counter()
        bound_to(f"{source}\nlimit(1)", source.count("\n") + 2, "limit")
        assert time.perf_counter() - began < 1

    @settings(max_examples=300, deadline=1000)
    @given(st.text(alphabet="{}(),;= \n'/*.:limtconsreq-_\"", max_size=3000))
    def test_any_source_is_read_in_time(self, source):
        """A forged source neither fails nor takes long."""
        bound_to(f"{source}\nlimit(1)", source.count("\n") + 2, "limit")
