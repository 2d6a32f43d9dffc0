"""An upstream over TLS: its certificate is checked, and so is its name."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from ingest.http.upstream import Upstream, UpstreamError
from tests.support.tool_upstream import answer, says, tool_upstream

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="not run: openssl, which makes certificates, is missing"
)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of `localhost` that nobody but a test knows, and its key in the same file."""
    made = tmp_path / "localhost.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
            *(
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost",
                "-keyout",
                str(made),
                "-out",
                str(made) + ".crt",
            ),
        ],
        check=True,
        capture_output=True,
    )
    made.write_text(made.read_text() + Path(f"{made}.crt").read_text())
    return made


async def ask(url: str) -> bytes:
    upstream = Upstream(url, connect_timeout_s=5)
    connection = await upstream.connect()
    try:
        connection.send("GET", b"/", [(b"host", upstream.authority)], b"")
        await connection.head()
        return b"".join([part async for part in connection.body()])
    finally:
        connection.close()


async def test_an_upstream_is_spoken_to_only_where_its_certificate_is_good(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an authority that this machine trusts (`SSL_CERT_FILE` names others), for the very name that is asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with tool_upstream(ssl=context) as server:
        server.behave = says(answer(b"over TLS"))
        with pytest.raises(UpstreamError, match="CERTIFICATE_VERIFY_FAILED"):
            await ask(f"https://localhost:{server.port}")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert await ask(f"https://localhost:{server.port}") == b"over TLS"
        assert server.seen[0].header("host") == f"localhost:{server.port}"
        with pytest.raises(UpstreamError, match="IP address mismatch"):
            await ask(f"https://127.0.0.1:{server.port}")


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://backend.example", b"backend.example"),
        ("https://backend.example:443", b"backend.example"),
        ("http://backend.example:443", b"backend.example:443"),
        ("http://[::1]:8080", b"[::1]:8080"),
        ("http://bücher.example", b"xn--bcher-kva.example"),
    ],
)
def test_an_upstream_is_asked_for_by_its_name(url: str, authority: bytes) -> None:
    assert Upstream(url, connect_timeout_s=1).authority == authority
