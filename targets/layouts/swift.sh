#!/bin/sh
# Compiles the packages of this bundle for the Swift package of ml-stable-diffusion, on a Mac with Xcode.
#
#   ./compile.sh [FOLDER]
#
# FOLDER, by default beside the bundle under its name and `-compiled`, gets the compiled models, vocab.json and
# merges.txt: it is what `StableDiffusionPipeline(resourcesAt:)` takes. The bundle stays as it is. Running this
# again replaces what it made before.
set -eu

fail() {
    printf '%s\n' "compile.sh: $1" >&2
    exit 1
}

if [ "$#" -gt 1 ]; then
    fail "takes one folder, got $# arguments"
fi
bundle=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
resources=$bundle/Resources
output=${1:-$bundle-compiled}
case $output in
    -*) fail "$output: not a folder, expected a path such as ./$output" ;;
    *) ;;
esac

command -v xcrun >/dev/null 2>&1 ||
    fail "no xcrun: run this on a Mac, with Xcode from the App Store"
xcrun --find coremlcompiler >/dev/null 2>&1 ||
    fail "no coremlcompiler: install Xcode, then run \`sudo xcode-select --switch /Applications/Xcode.app\`"
for name in vocab.json merges.txt; do
    [ -f "$resources/$name" ] || fail "$resources/$name is missing: copy the whole bundle"
done

mkdir -p -- "$output"
output=$(CDPATH='' cd -- "$output" && pwd -P)
case $output/ in
    "$bundle"/*) fail "$output: is inside the bundle, which stays as it is; choose another folder" ;;
    *) ;;
esac
work=$output/.compile.$$
trap 'rm -rf -- "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -- "$work"

count=0
for package in "$resources"/*.mlpackage; do
    [ -d "$package" ] || fail "$resources: holds no package: copy the whole bundle"
    name=$(basename -- "$package" .mlpackage)
    printf '%s\n' "compiling $name"
    xcrun coremlcompiler compile "$package" "$work" >&2 || fail "$package: coremlcompiler failed, see above"
    [ -d "$work/$name.mlmodelc" ] || fail "$package: coremlcompiler made no $name.mlmodelc"
    rm -rf -- "${output:?}/$name.mlmodelc"
    mv -- "$work/$name.mlmodelc" "$output/$name.mlmodelc"
    count=$((count + 1))
done
# The Swift package takes two halves before a whole, so none may stay of what this bundle does not hold.
for name in Unet UnetChunk1 UnetChunk2; do
    [ -d "$resources/$name.mlpackage" ] || rm -rf -- "${output:?}/$name.mlmodelc"
done
cp -- "$resources/vocab.json" "$resources/merges.txt" "$output/"
printf '%s\n' "$count models in $output"
