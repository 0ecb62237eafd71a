"""A front of a pod, which reads mounted Secrets; they change as a kubelet does it."""

import os
import shutil

from stand import Stand

SECRET = ("envoy.yaml", "certificate.json", "clients.json", "tokens.json")


class Mount:
    """A mounted Secret: links into `..data`, which is a link to a folder beside it."""

    def __init__(self, folder):
        self.folder = folder
        self._count = 0
        folder.mkdir()

    def replace(self, files):
        """Take other files, all at once, and remove the earlier ones."""
        self._count += 1
        data = self.folder / f"..2026_11_30_12_00_00.{self._count}"
        data.mkdir()
        for name, text in files.items():
            (data / name).write_text(text)
            (data / name).chmod(0o440)
        link, made = self.folder / "..data", self.folder / "..data_tmp"
        before = os.readlink(link) if link.is_symlink() else None
        made.symlink_to(data.name)
        made.rename(link)
        for name in files:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        if before:
            shutil.rmtree(self.folder / before)


class Pod(Stand):
    """A server and its front, which read only what is mounted."""

    def __init__(self, *options):
        super().__init__(*options)
        self.options += ("--admin", f"unix:{self.folder}/admin.sock")
        self.out = self.folder / "written"
        self.front_mount = Mount(self.folder / "mounted-front")
        self.users_mount = Mount(self.folder / "mounted-users")
        self.read_out = self.front_mount.folder
        self.read_users = self.users_mount.folder / "users.yaml"

    def ctl(self, *arguments):
        """Run backbonectl, and mount what it has changed."""
        told = super().ctl(*arguments)
        self.users_mount.replace({"users.yaml": self.users.read_text()})
        files = {
            # A pod mounts the folder where backbonectl has written it.
            name: (self.out / name)
            .read_text()
            .replace(f"{self.out}", f"{self.read_out}")
            for name in SECRET
            if (self.out / name).exists()
        }
        self.front_mount.replace(files)
        return told
