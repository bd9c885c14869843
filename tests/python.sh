#!/bin/sh
# python.sh BUILD: installs the Python package as a user would, and runs its tests (bindings/python/
# tests, with pytest), type checks (mypy) and examples. Skipped if the packages that it needs are not
# available. With CI=true that is a failure.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
package=$root/bindings/python
build=$(cd "$1" && pwd)
venv=$build/python-venv
python=$venv/bin/python

# Install the requirements once, until their list changes.
if ! cmp -s "$package/pyproject.toml" "$venv/pyproject.toml"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    if ! "$python" "$package/tools/requirements.py" | "$venv/bin/pip" install -q -r /dev/stdin; then
        echo "python: cannot install the requirements of the package"
        test "${CI-}" = true || exit 77
        exit 1
    fi
    cp "$package/pyproject.toml" "$venv/"
fi
"$venv/bin/pip" install -q --no-build-isolation --no-deps --force-reinstall "$package" -C "build-dir=$build/python"

export QUIP_BUILD="$build"
cd "$package"
"$python" -m mypy
shift
"$python" -m pytest "$@" -p no:cacheprovider
