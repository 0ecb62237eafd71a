"""Certificates and tokens of test cases, made by the program openssl."""

import base64
import json
import subprocess
import time
from pathlib import Path

# Files of a CA by which `openssl ca` makes lists of revoked certificates.
CONFIG = """\
[ca]
default_ca = own
[own]
database = {folder}/index.txt
crlnumber = {folder}/crlnumber
default_md = sha256
default_crl_days = 30
new_certs_dir = {folder}
serial = {folder}/serial
policy = any
[any]
commonName = supplied
"""


def openssl(*arguments, text=None):
    """Run openssl; give what it prints."""
    return subprocess.run(
        ["openssl", *map(str, arguments)],
        input=text,
        check=True,
        capture_output=True,
        timeout=60,
    ).stdout


def make_key(path):
    """Make a private key of curve P-256."""
    openssl(
        *("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-out", path),
    )
    return path


class Authority:
    """A CA in a folder of its own; makes pairs NAME.pem, NAME.key there."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        folder.mkdir()
        self.key = make_key(folder / "ca.key")
        self.pem = folder / "ca.pem"
        openssl(
            *("req", "-x509", "-new", "-key", self.key, "-days", 30),
            *("-subj", f"/CN={name}", "-out", self.pem),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )
        (folder / "index.txt").touch()
        (folder / "crlnumber").write_text("01")
        (folder / "serial").write_text("1000")
        (folder / "ca.cnf").write_text(CONFIG.format(folder=folder))

    def issue(self, name, san, usage="clientAuth", ends=None):
        """Make a certificate of these names; give its path and its key's.

        It ends in 30 days, or at so many seconds since 1970.
        """
        key, pem = make_key(self.folder / f"{name}.key"), self.folder / f"{name}.pem"
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(
            f"subjectAltName={san}\nextendedKeyUsage={usage}\n"
            "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\n"
        )
        request = openssl("req", "-new", "-key", key, "-subj", f"/CN={name}")
        if ends is not None:
            asked = self.folder / f"{name}.csr"
            asked.write_bytes(request)
            until = time.strftime("%y%m%d%H%M%SZ", time.gmtime(ends))
            self._ca(
                *("-batch", "-notext", "-in", asked, "-out", pem),
                *("-extfile", extensions, "-enddate", until),
            )
            return pem, key
        openssl(
            *("x509", "-req", "-CA", self.pem, "-CAkey", self.key, "-days", 30),
            *("-CAcreateserial", "-extfile", extensions, "-out", pem),
            text=request,
        )
        return pem, key

    def _ca(self, *arguments):
        openssl(
            *("ca", "-config", self.folder / "ca.cnf", "-cert", self.pem),
            *("-keyfile", self.key, *arguments),
        )

    def revoke(self, *pems):
        """Revoke certificates; give the path of the list of all that are."""
        for pem in pems:
            self._ca("-revoke", pem)
        self._ca("-gencrl", "-out", self.folder / "crl.pem")
        return self.folder / "crl.pem"


def encoded(value):
    """Give base64url without padding, of bytes or of JSON."""
    if not isinstance(value, bytes):
        value = json.dumps(value).encode()
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def decoded(token):
    """Give a token's header and claims, and the bytes of its signature."""
    parts = [base64.urlsafe_b64decode(part + "==") for part in token.split(".")]
    return json.loads(parts[0]), json.loads(parts[1]), parts[2]


def numbers(der):
    """Give the two numbers of a signature in DER, as a token has them."""
    length = der[3]
    first, second = der[4 : 4 + length], der[6 + length :]
    return b"".join(
        int.from_bytes(n, "big").to_bytes(32, "big") for n in (first, second)
    )


def forge(key, header=None, **claims):
    """Sign a token as backbonectl does, but for what is given; no key: no signature."""
    now = int(time.time())
    body = {"iss": "backboned", "aud": "backboned", "sub": "alice", "serial": 1}
    body |= {"iat": now, "exp": now + 3600} | claims
    text = f"{encoded(header or {'alg': 'ES256'})}.{encoded(body)}"
    if key is None:
        return f"{text}."
    der = openssl("dgst", "-sha256", "-sign", key, text=text.encode())
    return f"{text}.{encoded(numbers(der))}"
