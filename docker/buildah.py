"""Images and containers by Debian's buildah: no daemon, everything in one folder. Needs root, buildah and debootstrap."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

DEBIAN, PACKAGES = "bookworm", "ca-certificates,python3,python3-venv,python3-pip"


class Buildah:
    """A store of images and containers below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.driver = "overlay"
        try:  # layers on top of each other where the kernel allows it, else whole copies
            self("umount", self("mount", self("from", "--name", "trial", "scratch")) and "trial")
            self("rm", "trial")
        except subprocess.CalledProcessError:
            self.driver = "vfs"

    def __call__(self, *words: object) -> str:
        """Run buildah to its end and return what it printed; its complaints go to the terminal.

        Raises:
            subprocess.CalledProcessError: when it fails.
        """
        return subprocess.run(self.words(*words), check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def words(self, *words: object) -> list[str]:
        """The command that runs buildah on this store."""
        store = ("--root", self.folder / f"{self.driver}-store", "--runroot", self.folder / f"{self.driver}-run")
        return [str(word) for word in ("buildah", "--storage-driver", self.driver, *store, *words)]

    def works(self, *words: object) -> bool:
        """Whether buildah succeeds."""
        return subprocess.run(self.words(*words), check=False, capture_output=True).returncode == 0

    def run_words(
        self, container: str, words: Sequence[str], environment: Mapping[str, str], volumes: Sequence[str]
    ) -> list[str]:
        """The command that runs `words` in a container, as its image's user; it shares this process's network.

        /etc/hosts is the image's unless a volume brings another: buildah would mount its own over it, now and then.
        """
        options = ["--no-hosts", *(f"--env={name}={value}" for name, value in environment.items())]
        options += [f"--volume={volume}" for volume in volumes]
        return self.words("run", "--isolation", "chroot", *options, container, "--", *words)

    def fresh(self, image: str, name: str) -> None:
        """A new container of an image, in place of one of that name."""
        self.works("rm", name)
        self("from", "--pull-never", "--name", name, image)

    def has(self, image: str) -> bool:
        """Whether an image is in the store."""
        return self.works("inspect", "--type", "image", image)

    def pulled(self, image: str) -> bool:
        """Whether an official image came from Docker Hub."""
        return self.works("pull", f"docker.io/library/{image}")

    def build(self, tag: str, dockerfile: Path, context: Path, *options: str) -> None:
        """Build a Dockerfile; its steps and what they print go to the terminal."""
        words = ("build", "--isolation", "chroot", "--network", "host", "--pull=never", "--layers", *options)
        subprocess.run(self.words(*words, "--tag", tag, "--file", dockerfile, context), check=True)

    def build_base(self, image: str) -> None:
        """Debian with its own Python, under the name of an official image."""
        root = self.folder / "rootfs"
        log = self.folder / "debootstrap.log"
        with log.open("w") as file:
            words = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", DEBIAN, str(root)]
            subprocess.run(words, check=True, stdout=file)
        for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            marker.unlink()  # pip may install, as in the official image
        for name, program in (("python", "python3"), ("pip", "pip3")):
            (root / "usr/local/bin" / name).symlink_to(f"/usr/bin/{program}")
        container = self("from", "scratch")
        self("copy", "--quiet", container, root, "/")
        self("config", "--env", "LANG=C.UTF-8", "--cmd", "python", container)
        self("commit", "--quiet", "--rm", container, f"docker.io/library/{image}")
        shutil.rmtree(root)

    def remove(self) -> None:
        """Everything in the store, mounts first."""
        for words in (("umount", "--all"), ("rm", "--all"), ("rmi", "--all", "--force")):
            self.works(*words)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder)
