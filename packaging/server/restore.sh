#!/bin/sh
# Restore a backup: restore.sh BACKUP STUDIES MODELS
# Stop the server first. Labels and detectors that are there already and not in the backup stay; others are overwritten.
set -eu
backup=$1 studies=$2 models=$3
umask 077
(cd "$backup" && sha256sum --check --quiet SHA256SUMS)
if [ -f "$backup/studies.tar.gz" ]; then
    if [ -e "$studies/.server.lock" ] && command -v flock > /dev/null && ! flock --nonblock "$studies/.server.lock" true; then
        echo "restore.sh: a server is running on $studies: stop it first" >&2
        exit 1
    fi
    mkdir -p "$studies"
    tar --extract --gzip --file "$backup/studies.tar.gz" --directory "$studies"
fi
mkdir -p "$models"
tar --extract --gzip --file "$backup/models.tar.gz" --directory "$models"
echo "Restored $backup."
