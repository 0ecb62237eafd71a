"""backbonectl: users, tokens, connection files, and the files of a front."""

import base64
import json
import os
import pwd
import re
import subprocess
import time

import pytest
import yaml


@pytest.fixture
def run(backbonectl, tmp_path):
    """Runs the program on a users file of the test's own."""

    def run_one(*arguments):
        return subprocess.run(
            [backbonectl, *map(str, arguments)],
            env={**os.environ, "BACKBONED_USERS": str(tmp_path / "users.yaml")},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run_one


@pytest.fixture
def does(run):
    """Runs the program, which must do it; gives what it prints."""

    def done(*arguments):
        ended = run(*arguments)
        assert (ended.returncode, ended.stderr[:12]) != (2, "backbonectl:"), ended
        assert ended.returncode == 0, ended
        return ended.stdout

    return done


@pytest.fixture
def refuses(run):
    """Runs the program, which must say what is wrong, in one sentence."""

    def said(*arguments, code=2):
        ended = run(*arguments)
        assert (ended.returncode, ended.stdout) == (code, ""), ended
        (line,) = ended.stderr.splitlines()
        assert line.startswith("backbonectl: ")
        return line.removeprefix("backbonectl: ")

    return said


def claims_of(token):
    header, claims, _ = token.split(".")
    return [json.loads(base64.urlsafe_b64decode(p + "==")) for p in (header, claims)]


def listed(does):
    return {
        user.pop("name"): user for user in json.loads(does("user", "list", "--json"))
    }


def test_users_are_added_listed_and_removed(does):
    does("user", "add", "alice")
    options = ("--rights", "infer", "--share", "2", "--quota", "0.5")
    does("user", "add", "bob", *options, "--expires", "2999-03-31")
    assert listed(does) == {
        "alice": {"rights": "train"},
        "bob": {"rights": "infer", "share": 2, "quota": 0.5, "expires": "2999-03-31"},
    }
    table = does("user", "list")
    assert re.search(r"^bob +infer +2 +0.5 +- +- +2999-03-31$", table, re.M), table
    does("user", "remove", "alice")
    assert list(listed(does)) == ["bob"]


def test_who_removes_a_user_learns_what_stays(does, run):
    does("user", "add", "alice")
    ended = run("user", "remove", "alice")
    assert (ended.returncode, ended.stdout) == (0, "")
    first, second = ended.stderr.splitlines()
    assert first.startswith("removed alice; what alice made stays in the server")
    for command in ("`backbonectl checkpoint ls`", "`checkpoint rm alice/NAME`"):
        assert command in second
    assert run("user", "remove", "alice").returncode == 4


def test_the_file_is_its_owners_and_keeps_its_mode(does, tmp_path):
    does("user", "add", "alice")
    file = tmp_path / "users.yaml"
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    does("user", "add", "bob")
    assert file.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [file]


def test_two_at_once_lose_nobody(backbonectl, does, tmp_path):
    names = [f"user{n}" for n in range(12)]
    command = [backbonectl, "user", "add", "--users", tmp_path / "users.yaml"]
    started = [
        subprocess.Popen([*command, name], stderr=subprocess.DEVNULL) for name in names
    ]
    assert [process.wait(60) for process in started] == [0] * len(names)
    assert sorted(listed(does)) == sorted(names)


def test_a_user_with_an_account_gets_a_target(does):
    account = pwd.getpwuid(os.getuid()).pw_name
    said = does("user", "add", "alice", "--account", account)
    assert yaml.safe_load(said) == {"target": "unix:/run/backboned/lab.sock"}
    assert does("user", "add", "not-an-account") == ""
    assert listed(does)["alice"]["account"] == account


TARGET = ("--target", "lab.example.org:8443")


def token_of(does, *options):
    return yaml.safe_load(does("user", "token", "alice", *TARGET, *options))["token"]


def test_a_token_says_who_until_when_and_which(does):
    does("user", "add", "alice")
    header, claims = claims_of(token_of(does, "--days", "2"))
    now = time.time()
    assert (header["alg"], header["typ"]) == ("ES256", "JWT")
    assert abs(claims.pop("iat") - now) < 60
    assert abs(claims.pop("exp") - now - 2 * 86400) < 60
    serial = listed(does)["alice"]["token"]
    expected = {"iss": "backboned", "aud": "backboned", "sub": "alice"}
    assert claims == {**expected, "serial": serial}


def test_a_new_token_ends_the_older_ones(does):
    does("user", "add", "alice")
    serials = [claims_of(token_of(does))[1]["serial"] for _ in range(3)]
    assert serials == [serials[0] + n for n in range(3)]
    assert listed(does)["alice"]["token"] == serials[-1]


def test_tokens_of_a_removed_user_are_not_those_of_the_next(does):
    does("user", "add", "alice")
    old = claims_of(token_of(does))[1]["serial"]
    does("user", "remove", "alice")
    does("user", "add", "alice")
    assert "token" not in listed(does)["alice"]
    time.sleep(1)
    assert claims_of(token_of(does))[1]["serial"] > old


def test_a_token_ends_with_its_user(does, tmp_path):
    file = tmp_path / "users.yaml"
    end = int(time.time()) + 3600
    text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))
    file.write_text(f"users: {{alice: {{expires: '{text}'}}}}\n")
    assert claims_of(token_of(does))[1]["exp"] == end


def test_openssl_knows_the_signature(does, tmp_path):
    """The key that signs is made once, and the signature is that of RFC 7518."""
    does("user", "add", "alice")
    text, _, signature = token_of(does).rpartition(".")
    key = tmp_path / "signing-key.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    token_of(does)
    assert key.read_bytes() == before
    raw = base64.urlsafe_b64decode(signature + "==")
    assert len(raw) == 64
    numbers = [int.from_bytes(half, "big") for half in (raw[:32], raw[32:])]
    parts = []
    for number in numbers:
        data = number.to_bytes(number.bit_length() // 8 + 1, "big")
        parts.append(b"\x02" + bytes((len(data),)) + data)
    body = b"".join(parts)
    (tmp_path / "der").write_bytes(b"\x30" + bytes((len(body),)) + body)
    (tmp_path / "text").write_text(text)
    subprocess.run(
        ["openssl", "dgst", "-sha256", "-prverify", key, "-signature"]
        + [tmp_path / "der", tmp_path / "text"],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def test_a_connection_file_is_its_owners(does, run, refuses, tmp_path, authority):
    does("user", "add", "alice")
    file = tmp_path / "connection.yaml"
    options = (*TARGET, "--ca", authority.ca, "--connection", file)
    first = run("user", "token", "alice", *options)
    assert first.stderr == f"wrote {file}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    connection = yaml.safe_load(file.read_text())
    assert connection["target"] == "lab.example.org:8443"
    assert connection["ca"] == authority.ca.read_text()
    assert run("user", "token", "alice", *options).stderr == f"replaced {file}\n"
    assert yaml.safe_load(file.read_text())["token"] != connection["token"]
    file.write_text("a diary")
    serial = listed(does)["alice"]["token"]
    assert "no connection file" in refuses("user", "token", "alice", *options, code=6)
    assert file.read_text() == "a diary"
    lost = (*TARGET, "--connection", tmp_path / "no" / "folder")
    assert "cannot write" in refuses("user", "token", "alice", *lost, code=6)
    assert listed(does)["alice"]["token"] == serial


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a file of another account")
def test_what_root_writes_is_the_folders_owners(does, tmp_path):
    does("user", "add", "alice")
    account = pwd.getpwnam("daemon")
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, account.pw_uid, account.pw_gid)
    does("user", "token", "alice", *TARGET, "--connection", home / "c.yaml")
    assert (home / "c.yaml").stat().st_uid == account.pw_uid
    assert (home / "c.yaml").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "A subcommand is required"),
        (("user",), "A subcommand is required; see backbonectl user --help"),
        (("user", "add"), "NAME is required"),
        (("user", "add", "Alice"), "does not match [a-z0-9]"),
        (("user", "add", "local"), "local"),
        (("user", "add", "bob", "--rights", "boss"), "{infer,train,admin}"),
        (("user", "add", "bob", "--share", "0"), "--share: Value 0 not in range"),
        (("user", "add", "bob", "--quota", "2"), "--quota"),
        (("user", "add", "bob", "--expires", "soon"), "is no day, such as 2027-03-31"),
        (("user", "add", "bob", "--expires", "2020-01-01"), "is over"),
        (("user", "add", "bob", "--account", "no-such"), "there is no such account"),
        (("user", "add", "bob", "--account", "alice"), "there is no such account"),
        (("user", "add", "bob", "--socket", "lab.sock"), "host:port nor unix:/path"),
        (("user", "token", "alice"), "where is the front? --front names the folder"),
        (("user", "token", "alice", "--target", "lab"), "host:port nor unix:/path"),
        (("user", "token", "alice", *TARGET, "--days", "0"), "--days"),
        (
            ("user", "token", "alice", *TARGET, "--ca", "/etc/passwd"),
            "--ca has no certificate of PEM",
        ),
        (("front",), "--address is required"),
    ],
)
def test_a_mistake_is_one_sentence(does, refuses, arguments, words):
    does("user", "add", "alice")
    assert words in refuses(*arguments)
    assert list(listed(does)) == ["alice"]


@pytest.mark.parametrize(
    ("code", "arguments", "words"),
    [
        (6, ("user", "add", "alice"), "there is a user alice already"),
        (4, ("user", "remove", "alise"), "did you mean alice?"),
        (4, ("user", "token", "bob", *TARGET), 'no user "bob"'),
        (
            *(4, ("user", "token", "alice", *TARGET, "--ca", "no.pem")),
            "--ca: there is no file",
        ),
        (4, ("user", "list", "--users", "/no/file"), "/no/file"),
        (
            6,
            ("user", "add", "bob", "--users", "/no/file"),
            "cannot open the folder /no",
        ),
    ],
)
def test_what_cannot_be_done_is_one_sentence(does, refuses, code, arguments, words):
    does("user", "add", "alice")
    assert words in refuses(*arguments, code=code)
    assert list(listed(does)) == ["alice"]


def test_a_full_disk_is_no_success(backbonectl, does, tmp_path):
    does("user", "add", "alice")
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [backbonectl, "user", "list", "--users", tmp_path / "users.yaml"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 1
    assert ended.stderr == "backbonectl: standard output cannot be written\n"


def test_a_wrong_users_file_is_left_alone(refuses, tmp_path):
    file = tmp_path / "users.yaml"
    file.write_text("users:\n  alice: {rights: boss}\n")
    assert "line 2" in refuses("user", "add", "bob")
    assert "boss" in file.read_text()


def test_an_account_is_one_users(does, refuses):
    account = pwd.getpwuid(os.getuid()).pw_name
    does("user", "add", "alice", "--account", account)
    said = refuses("user", "add", "bob", "--account", account)
    assert said == f"the account {account} is alice's; an account is one user's"


def test_a_wrong_signing_key_is_refused(does, refuses, tmp_path):
    does("user", "add", "alice")
    (tmp_path / "signing-key.pem").write_text("no key")
    said = refuses("user", "token", "alice", *TARGET, code=6)
    assert "is no private key of curve P-256" in said
    assert "token" not in listed(does)["alice"]


FRONT = ("--address", "127.0.0.1:8443")


@pytest.fixture
def front(does, tmp_path):
    """Writes a front's files; gives their folder."""

    def written(*options):
        does("front", "--out", tmp_path / "front", *FRONT, *options)
        return tmp_path / "front"

    return written


def openssl(*arguments):
    return subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=60
    ).stdout


def test_a_front_has_a_ca_of_its_own(front):
    folder = front("--name", "lab.example.org")
    assert folder.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert {name for name, mode in modes.items() if mode == 0o600} == {
        "ca.key",
        "certificate.json",
        "server.key",
    }
    verified = openssl(
        *("verify", "-x509_strict", "-purpose", "sslserver"),
        *("-verify_hostname", "lab.example.org"),
        *("-CAfile", folder / "ca.pem", folder / "server.pem"),
    )
    assert verified.endswith("server.pem: OK\n")
    connection = yaml.safe_load((folder / "connection.yaml").read_text())
    assert connection == {
        "target": "lab.example.org:8443",
        "ca": (folder / "ca.pem").read_text(),
    }


def test_the_same_again_changes_nothing(front):
    folder = front()
    before = {
        path: (path.read_bytes(), path.stat().st_ino) for path in folder.iterdir()
    }
    front()
    assert before == {
        path: (path.read_bytes(), path.stat().st_ino) for path in folder.iterdir()
    }


def test_a_ca_goes_with_its_key(front, tmp_path):
    """By another key nobody could check what the old certificate has signed."""
    folder = front()
    old = (folder / "ca.pem").read_text()
    (folder / "ca.key").unlink()
    front()
    assert (folder / "ca.pem").read_text() != old
    openssl("verify", "-CAfile", folder / "ca.pem", folder / "server.pem")


def test_another_name_is_another_certificate_of_the_same_ca(front):
    folder = front()
    ca, old = ((folder / name).read_bytes() for name in ("ca.pem", "server.pem"))
    front("--name", "lab.example.org")
    assert (folder / "ca.pem").read_bytes() == ca
    assert (folder / "server.pem").read_bytes() != old


def test_a_certificate_is_renewed_in_its_last_days(front, tmp_path):
    folder = front()
    (tmp_path / "san").write_text("subjectAltName=IP:127.0.0.1")
    (tmp_path / "request").write_text(
        openssl("req", "-new", "-key", folder / "server.key", "-subj", "/CN=front")
    )
    for days, is_kept in ((40, True), (20, False)):
        openssl(
            *("x509", "-req", "-in", tmp_path / "request", "-days", days),
            *("-CA", folder / "ca.pem", "-CAkey", folder / "ca.key"),
            *("-CAcreateserial", "-extfile", tmp_path / "san"),
            *("-out", folder / "server.pem"),
        )
        before = (folder / "server.pem").read_text()
        front()
        after = (folder / "server.pem").read_text()
        assert (after == before) == is_kept
        assert json.dumps(after) in (folder / "certificate.json").read_text()


def test_a_private_file_that_others_read_is_made_private(front):
    folder = front()
    (folder / "certificate.json").chmod(0o644)
    front()
    assert (folder / "certificate.json").stat().st_mode & 0o777 == 0o600


def test_an_address_of_ipv6(does, tmp_path):
    folder = tmp_path / "front"
    does("front", "--out", folder, "--address", "[::1]:8443")
    connection = yaml.safe_load((folder / "connection.yaml").read_text())
    assert connection["target"] == "[::1]:8443"
    shown = openssl("x509", "-in", folder / "server.pem", "-noout", "-text")
    assert "IP Address:0:0:0:0:0:0:0:1" in shown
    config = yaml.safe_load((folder / "envoy.yaml").read_text())
    address = config["static_resources"]["listeners"][0]["address"]
    assert address == {"socket_address": {"address": "::1", "port_value": 8443}}


def test_a_token_takes_the_fronts_address_and_ca(front, does):
    folder = front()
    does("user", "add", "alice")
    connection = yaml.safe_load(does("user", "token", "alice", "--front", folder))
    assert connection["target"] == "127.0.0.1:8443"
    assert connection["ca"] == (folder / "ca.pem").read_text()


def test_a_front_knows_the_public_key_alone(front, does, tmp_path):
    folder = front()
    does("user", "add", "alice")
    token = yaml.safe_load(does("user", "token", "alice", "--front", folder))["token"]
    (resource,) = json.loads((folder / "tokens.json").read_text())["resources"]
    provider = resource["typed_config"]["providers"]["backboned"]
    (key,) = json.loads(provider["local_jwks"]["inline_string"])["keys"]
    assert key.keys() == {"kty", "crv", "alg", "use", "kid", "x", "y"}
    assert key["kid"] == claims_of(token)[0]["kid"]


def test_envoys_file_is_yaml_and_strips_first(front):
    config = yaml.safe_load((front("--json") / "envoy.yaml").read_text())
    (listener,) = config["static_resources"]["listeners"]
    (chain,) = listener["filter_chains"]
    manager = chain["filters"][0]["typed_config"]
    names = [http["name"] for http in manager["http_filters"]]
    assert names == ["strip", "tokens", "certificates", "somebody", "json", "router"]
    removed = manager["http_filters"][0]["typed_config"]["mutations"]
    assert [change["remove"] for change in removed["request_mutations"]] == [
        "backboned-principal",
        "backboned-token-serial",
        "backboned-token-expires",
        "x-forwarded-client-cert",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--address", "lab:8443"), "is no IP address of this machine and port"),
        (("--address", "127.0.0.1"), "is no IP address of this machine and port"),
        (("--address", "127.0.0.1:0"), "is no IP address of this machine and port"),
        (("--address", "::1:8443"), "is no IP address of this machine and port"),
        (("--address", "0.0.0.0:8443"), "--name says by which DNS name"),
        ((*FRONT, "--name", "a b"), "neither a DNS name nor an IP address"),
        ((*FRONT, "--server", "127.0.0.1:50051"), "is no Unix socket, unix:/path"),
        ((*FRONT, "--server", f"unix:/{'x' * 107}"), "at most 107 bytes"),
        ((*FRONT, "--admin", "127.0.0.1:9901"), "a port would let others end Envoy"),
        ((*FRONT, "--certificate", "c.pem"), "--certificate and --key belong together"),
        ((*FRONT, "--crl", "c.pem"), "--crl needs --client-ca"),
        ((*FRONT, "--client-ca", "no.pem"), "--client-ca: there is no file no.pem"),
        ((*FRONT, "--client-ca", "/etc/passwd"), "--client-ca has no certificate"),
        ((*FRONT, "--max-connections", "0"), "--max-connections"),
        (
            (*FRONT, "--out", f"/tmp/{'x' * 100}"),
            "admin.sock: a socket's path has at most ",
        ),
        ((*FRONT, "--out", "/etc/passwd"), "cannot make the folder /etc/passwd"),
    ],
)
def test_a_fronts_mistake_is_one_sentence(refuses, tmp_path, options, words):
    out = () if "--out" in options else ("--out", tmp_path / "front")
    code = 4 if "no file" in words else 6 if "cannot make" in words else 2
    assert words in refuses("front", *out, *options, code=code)
    assert not (tmp_path / "front/envoy.yaml").exists()


def test_a_key_of_another_certificate_is_refused(front, refuses, tmp_path):
    folder = front()
    pair = ("--certificate", folder / "server.pem", "--key", folder / "ca.key")
    said = refuses("front", "--out", tmp_path / "other", *FRONT, *pair)
    assert said == "--key is not the key of the first certificate in --certificate"
    said = refuses(
        *("front", "--out", tmp_path / "other", *FRONT),
        *("--client-ca", folder / "server.pem"),
    )
    assert said == "--client-ca has a certificate that is no CA's"
    said = refuses(
        *("front", "--out", tmp_path / "other", *FRONT),
        *("--client-ca", folder / "ca.pem", "--crl", folder / "ca.pem"),
    )
    assert said == "--crl is no list of revoked certificates of PEM"
