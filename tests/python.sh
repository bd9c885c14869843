#!/bin/sh
# python.sh BUILD: the Python package, installed as a stranger would, and its tests (bindings/python/
# tests, with pytest), types (mypy) and examples. Skipped where the packages that it needs cannot be
# had; under CI=true that is a failure.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
package=$root/bindings/python
build=$(cd "$1" && pwd)
venv=$build/python-venv
python=$venv/bin/python

# What the package needs, once: until the list changes.
if ! cmp -s "$package/pyproject.toml" "$venv/pyproject.toml"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    if ! "$python" "$package/tools/requirements.py" | "$venv/bin/pip" install -q -r /dev/stdin; then
        echo "python: what the package needs could not be installed"
        test "${CI-}" = true || exit 77
        exit 1
    fi
    cp "$package/pyproject.toml" "$venv/"
fi
"$venv/bin/pip" install -q --no-build-isolation --no-deps --force-reinstall "$package" -C "build-dir=$build/python"

cd "$package"
"$python" -m mypy
shift
"$python" -m pytest "$@" -p no:cacheprovider
