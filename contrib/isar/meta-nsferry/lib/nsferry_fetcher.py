"""The fetcher of apt:// in a build without root. Isar's unpacks the chroot for each recipe, and pipes an archive out of it."""
import bb
from aptsrc_fetcher import AptSrcUnshare
from bb.fetch2 import methods


class AptSrcNsferry(AptSrcUnshare):
    def supports(self, ud, d):
        return super().supports(ud, d) and d.getVar("ISAR_CHROOT_MODE") == "unshare"

    def download(self, ud, d):
        bb.utils.exec_flat_python_func("isar_export_proxies", d)
        given = d.createCopy()
        given.setVar("NSFERRY_SOURCE", ud.src_package)
        given.setVar("NSFERRY_SOURCE_DIR", self.localpath(ud, d))
        lock = bb.utils.lockfile(d.expand("${REPO_ISAR_DIR}/isar.lock"))
        try:
            bb.build.exec_func("nsferry_fetch_source", given)
        finally:
            bb.utils.unlockfile(lock)

    def _teardown_chroot(self, rootfsdir, d):
        pass  # there is none


def register():
    """The first method that supports a URL is taken."""
    if not isinstance(methods[0], AptSrcNsferry):
        methods.insert(0, AptSrcNsferry())
