"""An sshd of its own, on loopback, with keys of its own."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

SSHD = shutil.which("sshd") or ("/usr/sbin/sshd" if Path("/usr/sbin/sshd").exists() else None)
MISSING = [name for name, found in (("sshd", SSHD), ("ssh", shutil.which("ssh"))) if found is None]


class Server:
    """The sshd; what sessions make temporary stands in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.temporary = folder, folder / "device"
        self.temporary.mkdir()
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        server = {
            "Port": self.port,
            "ListenAddress": "127.0.0.1",
            "HostKey": folder / "host",
            "AuthorizedKeysFile": folder / "user.pub",
            "PidFile": "none",
            "StrictModes": "no",
            "PasswordAuthentication": "no",
            "SetEnv": f"TMPDIR={self.temporary}",
        }
        client = {
            "IdentityFile": folder / "user",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "no",
            "LogLevel": "ERROR",
        }
        for name, settings in (("server", server), ("client", client)):
            (folder / name).write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        self.ssh = f"ssh -F {folder / 'client'}"
        if not Path("/run/sshd").is_dir():
            Path("/run/sshd").mkdir()
        self.process = subprocess.Popen([str(SSHD), "-D", "-f", folder / "server"], stderr=subprocess.DEVNULL)
        self._wait()

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()

    def _wait(self) -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise TimeoutError("sshd did not begin")
