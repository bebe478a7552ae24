#!/usr/bin/env python3
"""Write a container image of one layer, from files, without Docker and with the standard library only.

The archive is an OCI image layout and a `docker save` archive at once, so `ctr images import`,
`docker load`, `podman load`, `kind load image-archive` and `skopeo copy oci-archive:` all take it.
Same inputs, same bytes: every time stamp is SOURCE_DATE_EPOCH (default 0), owners and order are fixed.

    mkimage.py --out app.tar --tag localhost/app:dev --bin target/release/app --ca ca-bundle.pem
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import sys
import tarfile
import time
from pathlib import Path

CA_PATH = "/etc/ssl/certs/ca-certificates.crt"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add("--out", required=True, type=Path, help="the archive to write")
    add("--tag", required=True, help="REGISTRY/NAME:TAG; the registry is needed, or tools put docker.io in front")
    add("--bin", required=True, action="append", metavar="HOST[:GUEST]",
        help="a program, by default as /usr/bin/NAME; the first one is the entry point")
    add("--file", default=[], action="append", metavar="HOST:GUEST[:MODE]", help="another file, MODE in octal (0644)")
    add("--ca", type=Path, help=f"a bundle of CA certificates, placed at {CA_PATH}")
    add("--user", default="65532:65532", metavar="UID:GID")
    add("--env", default=[], action="append", metavar="NAME=VALUE")
    add("--label", default=[], action="append", metavar="NAME=VALUE")
    add("--arg", default=[], action="append", help="a default argument of the entry point")
    add("--gzip", type=int, default=9, metavar="LEVEL", help="1 is quick, 9 (default) is small")
    add("--arch", default=ARCHITECTURES.get(os.uname().machine, os.uname().machine), help="default: this machine's")
    options = parser.parse_args()
    if not re.fullmatch(r"[^/:]+(:\d+)?(/[^/:]+)+:[^/:]+", options.tag):
        parser.error(f"--tag {options.tag}: want REGISTRY/NAME:TAG")
    if not re.fullmatch(r"\d+:\d+", options.user):
        parser.error(f"--user {options.user}: want numbers, UID:GID (runAsNonRoot cannot judge a name)")
    for pair in options.env + options.label:
        if "=" not in pair:
            parser.error(f"{pair}: want NAME=VALUE")
    return options


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def as_json(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def contents(options):
    """The image's files, {path: (bytes, mode)}, and the path of the entry point."""
    uid, gid = options.user.split(":")
    files = {
        # Some programs and libraries ask for the name and the home of their user.
        "/etc/passwd": (f"root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:{uid}:{gid}::/tmp:/sbin/nologin\n".encode(), 0o644),
        "/etc/group": (f"root:x:0:\nnonroot:x:{gid}:\n".encode(), 0o644),
        # Without it glibc asks DNS before /etc/hosts, or nothing at all, depending on its version.
        "/etc/nsswitch.conf": (b"hosts: files dns\n", 0o644),
    }
    entry = None
    for program in options.bin:
        host, _, guest = program.partition(":")
        guest = guest or "/usr/bin/" + Path(host).name
        files[guest] = (Path(host).read_bytes(), 0o755)
        entry = entry or guest
    for extra in options.file:
        host, guest, *mode = extra.split(":")
        files[guest] = (Path(host).read_bytes(), int(mode[0], 8) if mode else 0o644)
    if options.ca:
        files[CA_PATH] = (options.ca.read_bytes(), 0o644)
    return files, entry


def layer(files, epoch):
    """The layer as an uncompressed tar. Every folder is listed, because some runtimes make unlisted ones private."""
    folders = {"/tmp": 0o1777}
    for path in files:
        for folder in Path(path).parents:
            if folder != Path("/"):
                folders.setdefault(str(folder), 0o755)
    entries = [(path, None, mode) for path, mode in folders.items()]
    entries += [(path, data, mode) for path, (data, mode) in files.items()]
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, data, mode in sorted(entries, key=lambda entry: entry[0]):
            info = tarfile.TarInfo(path.lstrip("/"))
            info.mode, info.mtime = mode, epoch
            if data is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return raw.getvalue()


def main():
    options = arguments()
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
    labels = dict(label.split("=", 1) for label in options.label)
    files, entry = contents(options)
    raw = layer(files, epoch)
    packed = gzip.compress(raw, compresslevel=options.gzip, mtime=0)

    environment = ["PATH=/usr/bin", *([f"SSL_CERT_FILE={CA_PATH}"] if options.ca else []), *options.env]
    config = as_json({
        "created": created,
        "architecture": options.arch,
        "os": "linux",
        "config": {
            "User": options.user,
            "Entrypoint": [entry],
            **({"Cmd": options.arg} if options.arg else {}),
            "Env": environment,
            "WorkingDir": "/",
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(raw)]},
        "history": [{"created": created, "created_by": "mkimage.py"}],
    })
    manifest = as_json({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config), "size": len(config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(packed), "size": len(packed)}],
        "annotations": labels,
    })
    index = as_json({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(manifest),
            "size": len(manifest),
            "platform": {"architecture": options.arch, "os": "linux"},
            "annotations": {
                "io.containerd.image.name": options.tag,
                "org.opencontainers.image.ref.name": options.tag.rsplit(":", 1)[1],
            },
        }],
    })

    def blob(data):
        return "blobs/" + digest(data).replace(":", "/")

    docker = as_json([{"Config": blob(config), "RepoTags": [options.tag], "Layers": [blob(packed)]}])
    members = [("oci-layout", as_json({"imageLayoutVersion": "1.0.0"})), ("index.json", index), ("manifest.json", docker)]
    members += sorted((blob(data), data) for data in (config, manifest, packed))
    # Written aside: whoever finds the archive finds all of it.
    partial = options.out.with_name(options.out.name + ".new")
    with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), 0o644, epoch
            tar.addfile(info, io.BytesIO(data))
    partial.replace(options.out)
    print(f"mkimage.py: {options.tag} {digest(manifest)}, {len(packed) / 1e6:.1f} MB packed, {len(raw) / 1e6:.1f} MB unpacked", file=sys.stderr)
    print(options.out)


if __name__ == "__main__":
    main()
