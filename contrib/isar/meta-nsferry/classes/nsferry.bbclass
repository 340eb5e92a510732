# What Isar moves across the border of a user namespace, by nsferry. Nothing of Isar is patched: the override
# forcevariable is in OVERRIDES of every recipe and wins over the function of the same name. See README.md for what each
# function stands for.

# Whose a rootfs is: "caller", root inside is you, as in Isar's rootless branch; "base", root inside is your first
# sub-id, as in the first patch, mmdebstrap and sbuild.
NSFERRY_MODEL ?= "caller"
NSFERRY ?= "nsferry --quiet --no-progress --model ${NSFERRY_MODEL}"
# mmdebstrap and sbuild make their own namespaces, whose root is always the first sub-id.
NSFERRY_BASE ?= "nsferry --quiet --no-progress --model base"
NSFERRY_MODEL[vardepvalue] = "${NSFERRY_MODEL}"
# Trees of chroots that are used again, and what has to be revoked, go with the build.
export XDG_STATE_HOME = "${TMPDIR}/nsferry"

# The user's ids must be in no task hash, or else the cache would serve nobody but him.
RUN_PRIVILEGED_CMD:forcevariable = "${NSFERRY} run --"
UNSHARE_SUBUID_BASE:forcevariable = "${@get_subid_range('/etc/subuid', d)[0]}"
UNSHARE_SUBUID_BASE[vardepvalue] = ""

def get_subid_range(idmap, d):
    import json
    shown = json.loads(bb.process.run("nsferry --json --model base map show")[0])["result"]
    ranges = shown["sub_gids" if idmap.endswith("gid") else "sub_uids"]
    return ranges[0]["First"], ranges[0]["Count"]

def run_privileged_cmd(d):
    return d.getVar("RUN_PRIVILEGED_CMD")

get_base_subuid() {
    ${NSFERRY_BASE} map to-outside 0
}

run_privileged:forcevariable() {
    ${NSFERRY} run -- "$@"
}

run_privileged_here:forcevariable() {
    ${NSFERRY} run -- /bin/bash -s "$@"
}

run_privileged_heredoc:forcevariable() {
    ${NSFERRY} run -- /bin/bash -s "$@"
}

create_chroot_parent_dir:forcevariable() {
    ${NSFERRY} grant --traverse "$@"
}

# Inner root of the model base may go into the directories whose paths Isar's here-documents use.
nsferry_parent() {
    if [ "${NSFERRY_MODEL}" = caller ]; then mkdir -p "$@"; else ${NSFERRY} grant --traverse "$@"; fi
}

# DIRECTORY DISTRO, which may be a rootfs or a directory that mmdebstrap or sbuild use as one.
deb_dl_dir_import:forcevariable() {
    nsferry_parent "$(dirname "${1}")" # inner root removes it later
    [ -d "${1}" ] || nsferry_parent "${1}"
    ${NSFERRY} debs import "${DEBDIR}/${2}" "${1}"
}

deb_dl_dir_export:forcevariable() {
    mkdir -p "${DEBDIR}" "${REPO_ISAR_DIR}/${DISTRO}"
    ${SCRIPTSDIR}/lockrun.py -r -f '${REPO_ISAR_DIR}/isar.lock' -c \
        "${NSFERRY} debs export --unlisted=keep --local-repo '${REPO_ISAR_DIR}/${DISTRO}' '${1}' '${DEBDIR}/${2}'"
}

rootfs_prepare:forcevariable() {
    ${NSFERRY} rm -f "${ROOTFSDIR}"
    nsferry_parent "$(dirname "${ROOTFSDIR}")"
    ${NSFERRY} unpack "$(realpath "${BOOTSTRAP_SRC}")" "${ROOTFSDIR}"
    run_privileged "${ROOTFSDIR}/chroot-setup.sh" "setup" "${ROOTFSDIR}"
}

# Isar has the outer user run apt here, and binds what he may write to over the tree. Inner root may write to all of it,
# so that binds of a tree's own parts and of dpkg's locks have no use.
rootfs_cmd:forcevariable() {
    options="--bind ${REPO_ISAR_DIR}/${DISTRO}:/isar-apt"
    while [ "$1" != -- ]; do
        case "$1 $3" in
        "--bind /var/lib/dpkg/lock"*) shift 3 ;;
        "--bind "*) [ "${2%"$3"}" != "$2" ] || options="$options --bind $2:$3"; shift 3 ;;
        "--chdir "*) options="$options --chdir $2"; shift 2 ;;
        *) options="$options --rootfs $1 --apt"; shift ;;
        esac
    done
    ${NSFERRY} run $options "$@"
}

rootfs_install_sstate_prepare:forcevariable() {
    [ "${SSTATE_CURRTASK}" = "rootfs_install" ] || return 0
    ${NSFERRY} sstate pack-object "${ROOTFSDIR}"
}

rootfs_install_sstate_finalize:forcevariable() {
    [ "${SSTATE_CURRTASK}" = "rootfs_install" ] && [ -f rootfs.tar ] || return 0
    ${NSFERRY} rm -f "${ROOTFSDIR}" # of another build, perhaps a later one
    nsferry_parent "$(dirname "${ROOTFSDIR}")"
    ${NSFERRY} sstate restore-object "${ROOTFSDIR}"
}

sbuildchroot_deploy_tar:forcevariable() {
    ${NSFERRY} deploy --archive --target sbuild --force --remove "${ROOTFSDIR}" "${DEPLOY_SCHROOT}.tar.zst"
}

dpkg_prepare_unshare_ccache:forcevariable() {
    ${NSFERRY_BASE} grant --traverse --also-id 999 --default "${CCACHE_DIR}"
}

# sbuild's trees lie where `nsferry rm` of the build's directory removes them, should sbuild be killed.
sbuild_add_unshare_mounts:prepend() {
    ${NSFERRY_BASE} grant --traverse "${TMPDIR}/nsferry/sbuild"
    echo "\$unshare_tmpdir_template = '${TMPDIR}/nsferry/sbuild/tmp.sbuild.XXXXXXXXXX';" >>"${SBUILD_CONFIG}"
}

# A task's arguments before "--" are schroot's. The tree of the chroot is unpacked once for all tasks and stays as it is.
imager_run_unshare:forcevariable() {
    while [ "$#" -gt 0 ]; do
        if [ "$1" = -- ]; then shift; break; fi
        shift
    done
    [ "$#" -gt 0 ] || set -- /bin/bash -s
    install="${@(d.getVar("INSTALL_%s" % d.getVar("BB_CURRENTTASK")) or '').strip()}"
    bom="${@(d.getVar("BOM_%s" % d.getVar("BB_CURRENTTASK")) or '').strip()}"
    distro="${@d.getVar('HOST_BASE_DISTRO' if d.getVar('ISAR_CROSS_COMPILE') == '1' else 'BASE_DISTRO')}-${BASE_DISTRO_CODENAME}"
    debs="${WORKDIR}/debs-${BB_CURRENTTASK}"
    script="$(cat "${LAYERDIR_nsferry}/files/imager")"
    E="${@isar_export_proxies(d)}"
    failed=

    ${NSFERRY} rm -f "${debs}"
    mkdir -p "${DEBDIR}/${distro}"
    nsferry_parent "${debs}/var/cache/apt/archives"
    # Local packages are read under the repository's lock, which is passed on as descriptor 9; 8 becomes the manifest.
    ${@nsferry_imager(d)} run --rootfs "${SBUILD_CHROOT}" --ephemeral --apt ${@nsferry_binds(d, d.getVar('SCHROOT_MOUNTS'))} \
        --bind "${DEBDIR}/${distro}:/debs:ro" --bind "${debs}/var/cache/apt/archives:/debs-new" --keep-fd 9 --output 8:"${WORKDIR}/imager.manifest" --force \
        --env "INSTALL=${install}" --env "BOM=${bom}" \
        -- /bin/sh -c "$script" imager "$@" 9>>"${REPO_ISAR_DIR}/isar.lock" || failed=$?
    ${@nsferry_given(d)}
    [ -z "$failed" ] || return "$failed"
    [ -n "${bom}" ] || rm -f "${WORKDIR}/imager.manifest"
    deb_dl_dir_export "${debs}" "${distro}"
    ${NSFERRY} rm -f "${debs}"
}

# Image tools write into directories of yours, over files that you have begun. For that inner root of the model base has power over what is
# yours too: your ids are in its map, above its own.
def nsferry_imager(d):
    import os
    if d.getVar("NSFERRY_MODEL") != "base":
        return d.getVar("NSFERRY")
    ids = [(name, get_subid_range("/etc/sub%sid" % name, d), own) for name, own in (("u", os.getuid()), ("g", os.getgid()))]
    return d.getVar("NSFERRY") + " --map " + ",".join( # wins over the model
        "%s:0:%d:%d,%s:%d:%d:1" % (name, first, count, name, count, own) for name, (first, count), own in ids)

# What inner root of the model base has made in there becomes yours: after each image, failed ones too, and before one, should the
# task before have been killed.
def nsferry_given(d):
    return d.expand('${NSFERRY} give -R "${DEPLOY_DIR_IMAGE}"') if d.getVar("NSFERRY_MODEL") == "base" else ""

python set_image_size:prepend() {
    if nsferry_given(d):
        bb.process.run(nsferry_given(d))
}

def nsferry_binds(d, mounts):
    return ' '.join('--bind ' + m for m in (mounts or '').split())

# For each kernel its initrd, of whatever mode; several are an error.
rootfs_generate_initramfs:forcevariable() {
    for kernel in "${ROOTFSDIR}"/boot/vmlinu[xz]-*; do
        if [ ! -f "$kernel" ]; then
            echo "no kernel in this rootfs, do not generate initrd"
            return 0
        fi
        kernel_version="${kernel##*/vmlinu[xz]-}"
        export kernel_version
        mods_total="$(find "${ROOTFSDIR}/usr/lib/modules/$kernel_version" -type f -name '*.ko*' | wc -l)"
        echo "Total number of modules: $mods_total"
        echo "Generating initrd for kernel version: $kernel_version"
        run_in_chroot "${ROOTFSDIR}" sh -ec '${ROOTFS_INITRAMFS_GENERATOR_CMDLINE}'
        ${NSFERRY} deploy --force --from "${ROOTFSDIR}" "boot/initrd.img-$kernel_version" "${DEPLOYDIR}/${INITRD_DEPLOY_FILE}"
    done
}

do_copy_boot_files:forcevariable() {
    for kernel in vmlinuz vmlinux boot/vmlinuz boot/vmlinux; do
        [ -f "${IMAGE_ROOTFS}/$kernel" ] || continue
        kernel="$(realpath --relative-to="${IMAGE_ROOTFS}" "${IMAGE_ROOTFS}/$kernel")"
        ${NSFERRY} deploy --force --from "${IMAGE_ROOTFS}" "$kernel" "${DEPLOYDIR}/${KERNEL_IMAGE}"
        break
    done
    for file in ${DTB_FILES}; do
        ${NSFERRY} deploy --force --from "${IMAGE_ROOTFS}" "usr/lib/linux-image-*/$file" "${DEPLOYDIR}/"
    done
}

# What is later than the epoch after this is what the function itself changes: a few files, not a fork for each.
do_rootfs_finalize:prepend() {
    ${NSFERRY} clamp "${ROOTFSDIR}" --epoch "${SOURCE_DATE_EPOCH}"
}

fetch_common_source_unshare:forcevariable() {
    ${NSFERRY} run --rootfs "${SBUILD_CHROOT}" --ephemeral --apt ${@nsferry_binds(d, d.getVar('SCHROOT_MOUNTS'))} <<'EOF'
        set -e
        apt-get -q update -o Dir::Etc::SourceList=sources.list.d/isar-apt.list -o Dir::Etc::SourceParts=- -o APT::Get::List-Cleanup=0
        cd /work
        apt-get -q -y --download-only --only-source -o Acquire::Source-Symlinks=false source ${DEBIAN_SOURCE}
EOF
}

# What apt downloads appears whole, or not at all.
nsferry_fetch_source() {
    ${NSFERRY} rm -f "${WORKDIR}/source"
    nsferry_parent "${WORKDIR}/source"
    ${NSFERRY} run --rootfs "${SBUILD_CHROOT}" --ephemeral --apt --bind "${WORKDIR}/source:/work" --chdir /work -- \
        apt-get -q -y -o Debug::NoLocking=1 -o Acquire::Source-Symlinks=false --download-only --only-source source "${NSFERRY_SOURCE}"
    rm -rf "${NSFERRY_SOURCE_DIR}" "${NSFERRY_SOURCE_DIR}.partial"
    mkdir -p "${NSFERRY_SOURCE_DIR}.partial"
    ${NSFERRY} deploy --all --from "${WORKDIR}/source" '*' "${NSFERRY_SOURCE_DIR}.partial/"
    mv "${NSFERRY_SOURCE_DIR}.partial" "${NSFERRY_SOURCE_DIR}"
    ${NSFERRY} rm "${WORKDIR}/source"
}

python () {
    import nsferry_fetcher
    nsferry_fetcher.register()
}

root_cleandirs:forcevariable() {
    ROOT_CLEANDIRS_DIRS_PY="${@d.getVar("ROOT_CLEANDIRS_DIRS") or ""}"
    for i in ${ROOT_CLEANDIRS_DIRS-${ROOT_CLEANDIRS_DIRS_PY}}; do
        [ ! -d "${TMPDIR}$i" ] || { ${NSFERRY} rm "${TMPDIR}$i" && mkdir -p "${TMPDIR}$i"; }
    done
}

python do_clean:forcevariable() {
    import glob
    for f in (d.getVar('CLEANFUNCS') or '').split():
        bb.build.exec_func(f, d)
    bb.process.run(d.getVar('NSFERRY').split() + ['rm', '-f', d.getVar('WORKDIR'), *glob.glob(d.getVar('STAMPCLEAN'))])
}
