#!/bin/sh
# Back up what readers made: backup.sh STUDIES MODELS BACKUP
# Labels, marks, info and detectors go to the new folder BACKUP, not the images, and nothing that the server can compute
# again. The server may run meanwhile: its files appear whole or not at all.
set -eu
studies=$1 models=$2 backup=$3
umask 077
if [ -e "$backup" ]; then
    echo "backup.sh: $backup exists already: choose another folder" >&2
    exit 1
fi
part="$backup.part"
rm -rf "$part"
mkdir -p "$part"
pack() {  # FILE FOLDER NAME...: of a folder that changes while it is read, tar says so with exit code 1
    file=$1 folder=$2
    shift 2
    tar --create --gzip --file "$file" --exclude='.part-*' --directory "$folder" "$@" || [ $? -eq 1 ]
    gzip --test "$file"
}
if [ -d "$studies" ]; then  # the studies may be in an archive, which has its own backup
    set --
    for name in labels datastore_v2.json; do
        if [ -e "$studies/$name" ]; then set -- "$@" "$name"; fi
    done
    pack "$part/studies.tar.gz" "$studies" "$@"
fi
pack "$part/models.tar.gz" "$models" --exclude=./results --exclude=./scores --exclude=./dicomweb/*/series \
    --exclude=./dicomweb/*/labels .
(cd "$part" && sha256sum -- *.tar.gz > SHA256SUMS)
mv "$part" "$backup"
echo "Backed up to $backup."
